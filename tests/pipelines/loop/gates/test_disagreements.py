"""What labels on a challenger's disagreements certify: the searched policy, one that keeps less, or nothing."""

import numpy as np
import pytest

from kcm.cascade.policy import KEEP_ALL
from pipelines.loop.gates.disagreements import DisputedItem, LabelTest, outcome, standing_of

NUM = 2000


def made_test(task: str | None = None, never: int = 0) -> LabelTest:
    """A tenth of the units is disputed, with scores from 0 to 1; the first `never` items nobody could tell."""
    places = np.random.default_rng(0).permutation(NUM)[: NUM // 10].tolist()
    items = tuple(
        DisputedItem(
            id=f"r{place}/0",
            place=place,
            weight=1.0,
            score=number / len(places),
            small_label="yes",
            large_label=None if number < never else "no",
        )
        for number, place in enumerate(places)
    )
    return LabelTest(task=task, decision=KEEP_ALL, epsilon=0.02, delta=0.1, floor=1.0, num_units=NUM, items=items)


def answered(test: LabelTest, wrong_below: float) -> dict[str, tuple[str, str | None]]:
    """All labels are there, and the large model is right below a score."""
    return {each.id: ("labelled", "no" if each.score < wrong_below else "yes") for each in test.items}


@pytest.mark.parametrize(
    ("state", "label", "large", "found"),
    [
        ("drawn", None, "no", (False, False)),
        ("labelled", "no", "no", (True, True)),
        ("labelled", "yes", "no", (True, False)),
        ("labelled", "maybe", "no", (True, False)),
        ("skipped", None, "no", (True, True)),
        ("drawn", None, None, (True, True)),
    ],
)
def test_an_item_is_lost_where_the_large_side_alone_is_right(
    state: str, label: str | None, large: str | None, found: tuple[bool, bool]
) -> None:
    assert outcome(state, label, "yes", large) == found


def test_labels_certify_the_searched_or_a_stricter_policy() -> None:
    """Promise: labels certify the searched policy or one that keeps less."""
    test = made_test()
    good, some, none = (standing_of([test], answered(test, below)) for below in (0.05, 0.5, 1.1))
    assert (good.certified, good.stricter, good.decided, good.num_labelled) == (True, False, NUM, NUM // 10)
    assert good.bound < 0.02 < some.bound < none.bound
    assert (some.certified, some.stricter, none.certified) == (False, True, False)
    assert test.certified(answered(test, 0.05)) == KEEP_ALL
    assert 0.2 < test.certified(answered(test, 0.5)).cut < 0.5
    assert test.certified({}).cut > 0.8  # by the units that no label is asked of


def test_a_policy_is_certified_where_each_of_its_decisions_is() -> None:
    test, own = made_test(), made_test("films", never=100)
    states = answered(test, 0.05)
    standing = standing_of([test, own], states)
    assert not standing.certified
    assert standing.stricter
    assert standing.bound == max(each.result(states).bound for each in (test, own))
    assert standing_of([test, test], states).certified
    assert not standing_of([], states).certified
