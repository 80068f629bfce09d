"""A person names a class once, in a file that is read whole or not at all."""

from pathlib import Path

import pytest

from kcm.errors import ConfigError
from pipelines.loop.window.naming import ClassNames
from pipelines.store.records import Control

KNOWN = ("card_lost", "balance")


@pytest.fixture
def named(tmp_path: Path) -> ClassNames:
    return ClassNames(Control(tmp_path / "control"), "bank")


def read(named: ClassNames, folder: Path, *labels: str) -> tuple[str, ...]:
    (folder / "labels.txt").write_text("\n".join(labels))
    named.read(folder / "labels.txt", KNOWN)
    return named.labels()


def test_a_name_stands_for_every_process_until_it_is_withdrawn(named: ClassNames, tmp_path: Path) -> None:
    assert read(named, tmp_path, *KNOWN, "refund", "", "travel alert") == ("refund", "travel alert")
    assert ClassNames(Control(tmp_path / "control"), "bank").labels() == ("refund", "travel alert")
    assert read(named, tmp_path, "# a comment", *KNOWN, "travel alert") == ("travel alert",)
    assert set(read(named, tmp_path, *KNOWN, "travel alert", "refund")) == {"refund", "travel alert"}


def test_what_is_written_changes_nothing_when_it_is_read(named: ClassNames, tmp_path: Path) -> None:
    """Promise: the file lists what is known, what was named, and as comments what callers called it."""
    read(named, tmp_path, *KNOWN, "refund")
    named.write(tmp_path / "out.txt", KNOWN, {"top\nup": 12})
    assert len((tmp_path / "out.txt").read_text().splitlines()) == 4
    named.read(tmp_path / "out.txt", KNOWN)
    assert named.labels() == ("refund",)


@pytest.mark.parametrize(
    ("added", "why"),
    [("Card-Lost", "'card_lost'"), ("RE FUND", "'refund'"), ("?!", "letter"), (None, "'balance' is missing")],
)
def test_a_faulty_file_names_nothing(named: ClassNames, tmp_path: Path, added: str | None, why: str) -> None:
    lines = [KNOWN[0], "refund"] if added is None else [*KNOWN, "refund", added]
    with pytest.raises(ConfigError, match=why):
        read(named, tmp_path, *lines)
    assert named.labels() == ()
