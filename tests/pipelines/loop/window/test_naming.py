"""A person names a class once."""

from pathlib import Path

import pytest

from kcm.errors import ConfigError
from pipelines.loop.window.naming import ClassNames
from pipelines.store.records import Control

KNOWN = ("card_lost", "balance")


@pytest.fixture
def named(tmp_path: Path) -> ClassNames:
    return ClassNames(Control(tmp_path), "bank")


def test_a_name_stands_for_every_process_until_it_is_withdrawn(named: ClassNames, tmp_path: Path) -> None:
    named.name("refund", KNOWN)
    named.name("travel alert", KNOWN)
    assert ClassNames(Control(tmp_path), "bank").labels() == ("refund", "travel alert")
    named.withdraw("refund")
    assert named.labels() == ("travel alert",)
    named.name("refund", KNOWN)
    assert set(named.labels()) == {"refund", "travel alert"}


@pytest.mark.parametrize(("label", "why"), [("Card-Lost", "'card_lost'"), ("RE FUND", "'refund'"), ("?!", "letter")])
def test_a_name_that_exists_in_other_spelling_is_refused(named: ClassNames, label: str, why: str) -> None:
    named.name("refund", KNOWN)
    with pytest.raises(ConfigError, match=why):
        named.name(label, KNOWN)
