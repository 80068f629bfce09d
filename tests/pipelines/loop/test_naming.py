"""A person names a class once; groups of escalated items help to find it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from kcm.errors import ConfigError, DataError
from pipelines.loop.naming import IgnoredGroups, NamedLabels, groups_of
from pipelines.store.control.records import Control
from tests.pipelines.loop.logged import MadeLog, decisions

KNOWN = ("card_lost", "balance")


@pytest.fixture
def named(tmp_path: Path) -> NamedLabels:
    return NamedLabels(Control(tmp_path), "bank")


def test_a_name_stands_for_every_process_until_it_is_withdrawn(named: NamedLabels, tmp_path: Path) -> None:
    named.name("refund", KNOWN)
    named.name("travel alert", KNOWN)
    assert NamedLabels(Control(tmp_path), "bank").all() == ("refund", "travel alert")
    named.withdraw("refund")
    assert named.all() == ("travel alert",)
    named.name("refund", KNOWN)
    assert set(named.all()) == {"refund", "travel alert"}


@pytest.mark.parametrize(("label", "why"), [("Card-Lost", "'card_lost'"), ("RE FUND", "'refund'"), ("?!", "letter")])
def test_a_name_that_exists_in_other_spelling_is_refused(named: NamedLabels, label: str, why: str) -> None:
    named.name("refund", KNOWN)
    with pytest.raises(ConfigError, match=why):
        named.name(label, KNOWN)


def test_what_was_not_named_cannot_be_withdrawn(named: NamedLabels) -> None:
    with pytest.raises(ConfigError, match="nobody has named 'refund'"):
        named.withdraw("refund")


def window(*kinds: tuple[str, int, int], route: str = "large") -> pa.Table:
    """Escalated items: texts about a word, how many, and the direction of their features."""
    rng, rows = np.random.default_rng(0), []
    for word, count, direction in kinds:
        texts = [f"{word} number {n}" for n in range(count)]
        for row in decisions(texts, ["good"] * count, share=1.0):
            features = 0.1 * rng.normal(size=8) + 3 * np.eye(8)[direction]
            rows.append(row | {"route": route, "features": features.tolist()})
    return MadeLog(rows).table


def test_items_that_lie_together_are_shown_as_a_group_with_examples_and_telling_words() -> None:
    groups = groups_of(window(("refund", 30, 0), ("holiday", 20, 1), ("stray", 3, 2)))
    assert [group.size for group in groups] == [30, 20]
    assert [group.proposal.split("_")[0] for group in groups] == ["refund", "holiday"]
    assert len(groups[0].examples) == 5
    assert groups[0].answers == {"good": 30}
    assert groups[0].agreement == 0.0  # the small side would have answered otherwise


def test_a_group_that_is_ignored_is_shown_no_more_nor_one_like_it_until_it_is_regarded_again(tmp_path: Path) -> None:
    ignored, seen = IgnoredGroups(Control(tmp_path), "bank"), window(("noise", 30, 0), ("holiday", 20, 1))
    groups = groups_of(seen)
    ignored.ignore(groups[0].proposal, groups)
    later = window(("other noise", 40, 0), ("refund", 30, 2))
    known = IgnoredGroups(Control(tmp_path), "bank").centres()
    assert list(known) == [groups[0].proposal]
    assert [group.size for group in groups_of(seen, known.values())] == [20]
    assert [group.size for group in groups_of(later, known.values())] == [30]
    assert len(groups_of(later, [[1.0, 0.0]])) == 2  # of another encoder: it tells nothing of these
    ignored.regard(groups[0].proposal)
    assert ignored.centres() == {}


def test_only_groups_that_are_there_are_ignored_and_only_ignored_ones_regarded(tmp_path: Path) -> None:
    ignored = IgnoredGroups(Control(tmp_path), "bank")
    with pytest.raises(ConfigError, match="no group has the proposed name 'noise'"):
        ignored.ignore("noise", [])
    with pytest.raises(ConfigError, match="no group 'noise' is ignored"):
        ignored.regard("noise")


def test_too_few_items_are_no_group_and_none_without_features_is_told() -> None:
    assert groups_of(window(("refund", 3, 0))) == []
    with pytest.raises(DataError, match="no features"):
        groups_of(window(("refund", 30, 0), route="small"))
