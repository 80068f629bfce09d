import os
import re
from hashlib import sha256
from pathlib import Path

import pytest

from kcm.errors import ConfigError
from pipelines.serve.http.keys import Keys


def line(name: str, key: str) -> str:
    return f"{name} {sha256(key.encode()).hexdigest()}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text("# who may call\n" + line("ann", "secret-1") + line("ann", "secret-2") + line("bob", "secret-3"))
    return path


def test_each_key_stands_for_its_name_and_nothing_else_does(file: Path) -> None:
    keys = Keys(file)
    assert [keys.caller(key) for key in ("secret-1", "secret-2", "secret-3")] == ["ann", "ann", "bob"]
    hashes = re.findall(r"[0-9a-f]{64}", file.read_text())
    assert [keys.caller(key) for key in ("", "secret", "ann", "\udcff", *hashes)] == [None] * 7


def test_keys_change_without_a_restart(file: Path) -> None:
    keys = Keys(file)
    file.write_text(line("ann", "secret-2") + line("ann", "secret-4"))
    assert [keys.caller(key) for key in ("secret-1", "secret-2", "secret-4")] == [None, "ann", "ann"]
    replacement = file.with_suffix(".new")
    replacement.write_text(line("eve", "secret-5"))
    os.replace(replacement, file)
    assert [keys.caller(key) for key in ("secret-4", "secret-5")] == [None, "eve"]


@pytest.mark.parametrize("content", ["", "ann secret-1\n", None], ids=["empty", "a key for its hash", "gone"])
def test_broken_key_file_keeps_the_earlier_keys(file: Path, content: str | None) -> None:
    """Promise: a file that is broken later locks nobody out and lets nobody in."""
    keys = Keys(file)
    file.unlink() if content is None else file.write_text(content)
    assert [keys.caller(key) for key in ("secret-1", "secret-9")] == ["ann", None]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"ann {sha256(b'secret-1').hexdigest()}\neve {sha256(b'').hexdigest()}\n", "the hash of an empty key.*line 2"),
        (None, "cannot be read"),
        ("# none\n", "there is no key"),
        ("ann secret-1\n", "not a name and a hash"),
    ],
)
def test_missing_keys_fail_the_start_and_errors_hide_keys(tmp_path: Path, content: str | None, message: str) -> None:
    """Promise: there must be keys to start with and an error shows none."""
    file = tmp_path / "keys"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        Keys(file)
    assert "secret" not in str(caught.value)
