"""What the labels of an inbox certify so far, from the log alone: the service says it without the loop's storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kcm.cascade.policy import Decision
from kcm.certify.labelled import LabelledTest, LabelledUnits, lowest_certified
from kcm.config import Config

States = Mapping[str, tuple[str, str | None]]  # state and label of an item by `request id/item`


class DisputedItem(Config):
    """A drawn disagreement: its place in the order of units, and what X of its unit grows by where it is lost.

    `large_label` is None where the large model never answered: no label could tell, and the item is lost.
    """

    id: str
    place: int
    weight: float
    score: float
    small_label: str
    large_label: str | None


class LabelTest(Config):
    """The test of one decision of a challenger's policy: that for `task`, or for all requests without one."""

    task: str | None
    decision: Decision
    epsilon: float
    delta: float
    floor: float
    num_units: int
    items: tuple[DisputedItem, ...]

    def units(self, states: States) -> LabelledUnits:
        """What is known by the labels in `states`."""
        known = [
            outcome(*states.get(each.id, ("drawn", None)), each.small_label, each.large_label) for each in self.items
        ]
        return LabelledUnits(
            num_units=self.num_units,
            floor=self.floor,
            place=np.array([each.place for each in self.items], dtype=np.int64),
            weight=np.array([each.weight for each in self.items], dtype=np.float64),
            score=np.array([each.score for each in self.items], dtype=np.float64),
            answered=np.array([answered for answered, _ in known], dtype=bool),
            lost=np.array([lost for _, lost in known], dtype=bool),
        )

    def result(self, states: States) -> LabelledTest:
        """The test at the searched threshold."""
        return LabelledTest(self.units(states), self.epsilon, self.delta)

    def certified(self, states: States) -> Decision:
        """The searched decision where the labels certify it, else the closest stricter one that they do."""
        lowest = lowest_certified(self.units(states), self.decision.cut, self.epsilon, self.delta)
        return self.decision if lowest == self.decision.cut else Decision.of(lowest)


@dataclass(frozen=True)
class Standing:
    """What the labels so far certify of the searched policy.

    `bound` is the upper end of the accuracy lost where labels suffice or not, for the worst decision of the policy.
    `decided` of `num_units` units tell something by now. No further label is needed once `certified`; `stricter` says
    that not the searched policy, but one that keeps less is certified by now.
    """

    certified: bool
    stricter: bool
    bound: float
    epsilon: float
    decided: int
    num_units: int
    num_open: int
    num_labelled: int
    num_skipped: int


def outcome(state: str | None, label: str | None, small: str, large: str | None) -> tuple[bool, bool]:
    """Whether an item has been decided, and whether it is lost: the large side alone is right, or nobody could tell."""
    if large is None:
        return True, True
    return state in ("labelled", "skipped"), state == "skipped" or (label == large and label != small)


def standing_of(tests: Sequence[LabelTest], states: States) -> Standing:
    """What these labels certify."""
    results = [test.result(states) for test in tests]
    certified = bool(results) and all(result.certified for result in results)
    kept = [test.certified(states).decision != "escalate_all" for test in tests]
    counted = [state for state, _ in states.values()]
    return Standing(
        certified=certified,
        stricter=not certified and any(kept),
        bound=max((result.bound for result in results), default=0.0),
        epsilon=max((test.epsilon for test in tests), default=0.0),
        decided=sum(result.num_decided for result in results),
        num_units=sum(result.num_units for result in results),
        num_open=counted.count("drawn"),
        num_labelled=counted.count("labelled"),
        num_skipped=counted.count("skipped"),
    )
