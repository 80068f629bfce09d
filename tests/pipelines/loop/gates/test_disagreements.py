"""What labels on a challenger's disagreements certify: the searched policy, one that keeps less, or nothing."""

import numpy as np

from kcm.cascade.policy import KEEP_ALL
from kcm.certification.labelled import LabelledUnits
from pipelines.loop.gates.disagreements import LabelTest, Standing

NUM = 2000


def made_test(task: str | None = None, never: int = 0) -> LabelTest:
    """A tenth of the units is disputed, with scores from 0 to 1; the first `never` items nobody could tell."""
    places = np.random.default_rng(0).permutation(NUM)[: NUM // 10]
    num, first = len(places), np.arange(len(places)) < never
    units = LabelledUnits(
        num_units=NUM,
        floor=1.0,
        place=places,
        weight=np.ones(num),
        score=np.arange(num) / num,
        answered=first,
        lost=first,
    )
    ids = np.array([f"r{place}/0" for place in places], dtype=object)
    large = np.where(first, None, "no")
    return LabelTest(task, KEEP_ALL, 0.02, 0.1, units, ids, np.full(num, "yes", dtype=object), large)


def answered(test: LabelTest, wrong_below: float) -> dict[str, tuple[str, str | None]]:
    """All labels are there, and the large model is right below a score."""
    scores = zip(test.items, test.units.score, strict=True)
    return {item: ("labelled", "no" if score < wrong_below else "yes") for item, score in scores}


def test_an_item_is_lost_where_the_large_side_alone_is_right() -> None:
    """Promise: a skipped item and one that the large model never answered are lost too."""
    test = made_test(never=1)
    states = [("labelled", "yes"), ("labelled", "no"), ("labelled", "yes"), ("labelled", "maybe"), ("skipped", None)]
    found = test.labelled(dict(zip(test.items, states, strict=False)))
    assert found.answered[:6].tolist() == [True, True, True, True, True, False]
    assert found.lost[:6].tolist() == [True, True, False, False, True, False]
    assert test.num_labels(dict(zip(test.items, states, strict=False))) == 4


def test_labels_certify_the_searched_or_a_stricter_policy() -> None:
    """Promise: labels certify the searched policy or one that keeps less."""
    test = made_test()
    good, some, none = (Standing.of([test], answered(test, below)) for below in (0.05, 0.5, 1.1))
    assert (good.certified, good.stricter, good.num_labelled) == (True, False, NUM // 10)
    assert good.bound < 0.02 < some.bound < none.bound
    assert (some.certified, some.stricter, none.certified) == (False, True, False)
    assert test.certified(answered(test, 0.05)) == KEEP_ALL
    assert 0.2 < test.certified(answered(test, 0.5)).cut < 0.5
    assert test.certified({}).cut > 0.8  # by the units that no label is asked of


def test_a_policy_is_certified_where_each_of_its_decisions_is() -> None:
    test, own = made_test(), made_test("films", never=100)
    states = answered(test, 0.05)
    standing = Standing.of([test, own], states)
    assert not standing.certified
    assert standing.stricter
    assert standing.bound == max(each.result(states).bound for each in (test, own))
    assert Standing.of([test, test], states).certified
    assert not Standing.of([], states).certified
