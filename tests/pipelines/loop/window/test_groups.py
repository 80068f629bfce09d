"""Escalated items that lie together are shown as groups, under telling words or the large model's own."""

from pipelines.loop.window.groups import groups_of
from tests.pipelines.loop.logged import similar


def test_close_items_form_a_group_with_examples_and_words() -> None:
    """Promise: items that lie together are shown as a group with examples and telling words."""
    groups = groups_of(similar(("refund", 30, 0), ("holiday", 20, 1), ("stray", 3, 2)))
    assert [group.size for group in groups] == [30, 20]
    assert [group.proposal.split("_")[0] for group in groups] == ["refund", "holiday"]
    assert len(groups[0].examples) == 5
    assert groups[0].answers == {"good": 30}
    assert groups[0].agreement == 0.0  # the small side would have answered otherwise
