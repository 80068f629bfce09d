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


def test_a_label_with_an_alias_is_withdrawn_only_after_it(named: ClassNames) -> None:
    """Promise: a label that an alias points to is not withdrawn before the alias."""
    named.name("leave", KNOWN)
    named.identify("holiday", "leave", KNOWN)
    with pytest.raises(ConfigError, match="holiday is an alias of 'leave'"):
        named.withdraw("leave")
    named.withdraw("holiday")
    named.withdraw("leave")
    assert (named.labels(), named.same()) == ((), {})


def test_aliases_of_a_label_do_not_depend_on_order(named: ClassNames) -> None:
    """Promise: names of one label are one in whatever order it was said."""
    for label in ("refund", "rebate", "money back"):
        named.name(label, KNOWN)
    named.identify("money back", "rebate", KNOWN)
    named.identify("rebate", "refund", KNOWN)
    assert named.same() == {"money back": "refund", "rebate": "refund"}
    with pytest.raises(ConfigError, match="there is no label 'rebate'"):
        named.identify("refund", "rebate", KNOWN)
