"""Labels on the disagreements of a frozen challenger: the items for annotators and what their labels certify.

Hashes of the attempt's name decide which items are drawn, with which probability and in which order of units: fixed
before any label is seen, the same on every machine, and unchanged if a large answer arrives after the draw. An item
whose large answer was requested with probability pi is drawn with rho = floor / pi, so all items have equal weight.

Shapes: N decisions of certify units, in the order of their numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from kcm.cascade.policy import ESCALATE_ALL, Decision, Policy
from kcm.certification.labelled import LabelledTest, LabelledUnits, lowest_certified
from kcm.config import Config
from kcm.tasks.splits import draw
from pipelines.loop.window.judged_window import JudgedWindow

State = Literal["drawn", "labelled", "skipped"]
LabelStates = Mapping[str, tuple[str, str | None]]  # state and label of an item by `request id/item`


class DisputedItem(Config):
    """A drawn disagreement: the position of its unit in the order, and the increase of its unit's X if it is lost.

    `large_label` is None if the large model never answered: no label could help, and the item is lost.
    """

    id: str
    place: int
    weight: float
    score: float
    small_label: str
    large_label: str | None


class LabelTest(Config):
    """The test of one decision of a challenger's policy: the decision for `task`, or for requests without a task."""

    task: str | None
    decision: Decision
    epsilon: float
    delta: float
    floor: float
    num_units: int
    items: tuple[DisputedItem, ...]
    noise: float = 0.0

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
            answered=np.array([has_answer for has_answer, _ in outcomes], dtype=bool),
            lost=np.array([is_loss for _, is_loss in outcomes], dtype=bool),
            noise=self.noise,
        )

    def num_labels(self, states: LabelStates) -> int:
        """How many of the items a person has labelled or skipped that the large model answered."""
        label_states = (states.get(item.id, ("drawn", None))[0] for item in self.items if item.large_label is not None)
        return sum(state != "drawn" for state in label_states)

    def result(self, states: LabelStates) -> LabelledTest:
        """The test at the searched threshold."""
        return LabelledTest(self.units(states), self.epsilon, self.delta)

    def certified(self, states: LabelStates) -> Decision:
        """The searched decision if the labels certify it, or else the closest stricter decision that they certify."""
        lowest = lowest_certified(self.units(states), self.decision.cut, self.epsilon, self.delta)
        return self.decision if lowest == self.decision.cut else Decision.of(lowest)


@dataclass(frozen=True)
class Standing:
    """How far the labels so far certify the searched policy.

    `bound` is the upper end of the accuracy lost, for the worst decision of the policy. `decided` of `num_units` units
    contribute so far; without units, labels certify nothing. No further label is needed once `certified`. `stricter`
    says that the labels certify a policy that keeps less than the searched one. `num_open`, `num_labelled` and
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
    """Two flags: an item is decided; it is lost, because only the large model is right or nobody could tell."""
    if large is None:
        return True, True
    return state in ("labelled", "skipped"), state == "skipped" or (label == large and label != small)


def standing_of(tests: Sequence[LabelTest], states: LabelStates) -> Standing:
    """How far these labels certify the policy."""
    results = [test.result(states) for test in tests]
    is_certified = bool(results) and all(result.certified for result in results)
    item_states = [state for state, _ in states.values()]
    return Standing(
        certified=is_certified,
        stricter=not is_certified and any(test.certified(states).decision != "escalate_all" for test in tests),
        bound=max((result.bound for result in results), default=0.0),
        epsilon=max((test.epsilon for test in tests), default=0.0),
        decided=sum(result.num_decided for result in results),
        num_units=sum(result.num_units for result in results),
        num_open=item_states.count("drawn"),
        num_labelled=item_states.count("labelled"),
        num_skipped=item_states.count("skipped"),
    )


class LabelPlan(Config):
    """The purpose of a challenger's labels, fixed before the first label is seen."""

    attempt: str = Field(description="Names the draw, and the look in the ledger.")
    application: str
    version: str = Field(description="The challenger, NAME/NUMBER.")
    policy: Policy = Field(description="The policy that the search chose and the labels are to certify.")
    labels: tuple[str, ...] = Field(description="The labels that may be given.")
    floor: float = Field(gt=0, le=1, description="The least audit share of the window.")
    epsilon: float = Field(gt=0, lt=1, description="Accuracy that may be lost against large-only.")
    delta: float = Field(gt=0, lt=1, description="What the look may spend.")
    noise: float = Field(0.0, ge=0, lt=1, description="The largest probability that a label is wrong.")

    def probability(self, window: JudgedWindow) -> NDArray[np.float64]:
        """rho of each item, [N]."""
        return np.asarray(self.floor / window.probability)

    def drawn(self, window: JudgedWindow) -> NDArray[np.bool_]:
        """Whether an annotator gets the item if it is disputed, [N]."""
        draws = np.array([draw(0, f"label drawn {self.attempt}", item) for item in window.items])
        return np.asarray(draws < self.probability(window))

    def order(self, window: JudgedWindow) -> NDArray[np.float64]:
        """The position of each item's unit, [N]."""
        place = {unit: draw(0, f"label order {self.attempt}", str(unit)) for unit in pd.unique(window.unit)}
        return np.array([place[unit] for unit in window.unit], dtype=np.float64)


class GivenLabels(Config):
    """The labels of drawn items once they sufficed: the whole evidence of a labelled certificate."""

    plan: LabelPlan
    answers: dict[str, tuple[State, str | None]] = Field(description="State and label by `request id/item`.")


def drawn_places(window: JudgedWindow, plan: LabelPlan) -> NDArray[np.intp]:
    """The positions [M] of the disagreements that a certificate of the plan's policy needs labels for, in order.

    Annotators get them in this order, so every label decides as many units as it can.
    """
    disputed_N = window.answered & window.disagrees & window.keeps(plan.policy)
    places = np.flatnonzero(disputed_N & plan.drawn(window))
    return places[np.argsort(plan.order(window)[places], kind="stable")]


def label_tests(window: JudgedWindow, plan: LabelPlan) -> tuple[LabelTest, ...]:
    """The tests of every decision of the plan's policy that keeps anything, before any label.

    Their results may be read after each label: the test is valid at all times.
    """
    task_decisions = plan.policy.task_decisions
    decisions = {None: plan.policy.decision} | task_decisions
    parts = {
        task: window.of_task(task, task_decisions) for task, decision in decisions.items() if decision != ESCALATE_ALL
    }
    return tuple(_label_test(task, decisions[task], rows, plan) for task, rows in parts.items() if len(rows))


def _label_test(task: str | None, decision: Decision, window: JudgedWindow, plan: LabelPlan) -> LabelTest:
    """The test of one decision, with the disagreements above its threshold that are drawn."""
    traffic, rho_N, answered_N = window.traffic(plan.floor), plan.probability(window), window.answered
    disputed_N = traffic.asked & traffic.disagrees & (traffic.score > decision.cut)
    never_N = disputed_N & ~answered_N  # no label could tell whether the large model would have been right
    drawn_N = never_N | (disputed_N & plan.drawn(window))
    units = LabelledUnits.of(
        traffic,
        drawn=drawn_N,
        label_probability=np.where(never_N, 1.0, rho_N),
        order=plan.order(window),
        answered=never_N,
        lost=never_N,
        floor=plan.floor,
    )
    columns = window.items, window.label, window.large_label
    return LabelTest(
        task=task,
        decision=decision,
        epsilon=plan.epsilon,
        delta=plan.delta / (1 + len(plan.policy.task_decisions)),
        floor=units.floor,
        num_units=units.num_units,
        noise=plan.noise,
        items=tuple(
            DisputedItem(
                id=item,
                place=int(place),
                weight=float(weight),
                score=float(score),
                small_label=small,
                large_label=None if pd.isna(large) else large,
            )
            for place, weight, score, item, small, large in zip(
                units.place, units.weight, units.score, *(column[drawn_N] for column in columns), strict=True
            )
        ),
    )
