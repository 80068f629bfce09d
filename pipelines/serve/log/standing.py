"""What the labels of an inbox certify so far, from the log alone: the service says it without the loop's storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kcm.cascade.policy import Decision
from kcm.certify.labelled import LabelledTest, LabelledUnits, lowest_certified
from kcm.config import Config

LabelStates = Mapping[str, tuple[str, str | None]]  # state and label of an item by `request id/item`


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
    """The test of one decision of a challenger's policy: the decision for `task`, or for all requests without one."""

    task: str | None
    decision: Decision
    epsilon: float
    delta: float
    floor: float
    num_units: int
    items: tuple[DisputedItem, ...]

    def units(self, states: LabelStates) -> LabelledUnits:
        """What is known by the labels in `states`."""
        outcomes = [
            outcome(*states.get(item.id, ("drawn", None)), item.small_label, item.large_label) for item in self.items
        ]
        return LabelledUnits(
            num_units=self.num_units,
            floor=self.floor,
            place=np.array([item.place for item in self.items], dtype=np.int64),
            weight=np.array([item.weight for item in self.items], dtype=np.float64),
            score=np.array([item.score for item in self.items], dtype=np.float64),
            answered=np.array([answered for answered, _ in outcomes], dtype=bool),
            lost=np.array([lost for _, lost in outcomes], dtype=bool),
        )

    def result(self, states: LabelStates) -> LabelledTest:
        """The test at the searched threshold."""
        return LabelledTest(self.units(states), self.epsilon, self.delta)

    def certified(self, states: LabelStates) -> Decision:
        """The searched decision where the labels certify it, else the closest stricter one that they do."""
        lowest = lowest_certified(self.units(states), self.decision.cut, self.epsilon, self.delta)
        return self.decision if lowest == self.decision.cut else Decision.of(lowest)


@dataclass(frozen=True)
class Standing:
    """What the labels so far certify of the searched policy.

    `bound` is the upper end of the accuracy lost, for the worst decision of the policy. `decided` of `num_units` units
    tell something by now; without units labels certify nothing. No further label is needed once `certified`; `stricter`
    says that the labels certify not the searched policy, but one that keeps less. `num_open`, `num_labelled` and
    `num_skipped` count the items.
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


def standing_of(tests: Sequence[LabelTest], states: LabelStates) -> Standing:
    """What these labels certify."""
    results = [test.result(states) for test in tests]
    certified = bool(results) and all(result.certified for result in results)
    item_states = [state for state, _ in states.values()]
    return Standing(
        certified=certified,
        stricter=not certified and any(test.certified(states).decision != "escalate_all" for test in tests),
        bound=max((result.bound for result in results), default=0.0),
        epsilon=max((test.epsilon for test in tests), default=0.0),
        decided=sum(result.num_decided for result in results),
        num_units=sum(result.num_units for result in results),
        num_open=item_states.count("drawn"),
        num_labelled=item_states.count("labelled"),
        num_skipped=item_states.count("skipped"),
    )
