"""Labels on the disagreements of a frozen challenger: the items for annotators and what their labels certify.

Hashes of the attempt's name decide which items are drawn, with which probability and in which order of units: fixed
before any label is seen, the same on every machine, and unchanged if a large answer arrives after the draw. An item
whose large answer was requested with probability pi is drawn with rho = floor / pi, so all items have equal weight.

Shapes: N decisions of certify units, in the order of their numbers; M drawn items of a test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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


class LabelPlan(Config):
    """The purpose of a challenger's labels, fixed before the first label is seen."""

    attempt: str = Field(description="Names the draw, and the look in the ledger.")
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


@dataclass(frozen=True, eq=False)
class LabelTest:
    """The test of one decision of a challenger's policy: the decision for `task`, or for requests without a task.

    `units` before any label; `items`, `small` and `large` [M] are ids and answers of the drawn items. If the large
    model never answered, no label could help, and the item is lost.
    """

    task: str | None
    decision: Decision
    epsilon: float
    delta: float
    units: LabelledUnits
    items: NDArray[np.object_]
    small: NDArray[np.object_]
    large: NDArray[np.object_]

    def labelled(self, states: LabelStates) -> LabelledUnits:
        """What is known by the labels in `states`."""
        known = np.array([states.get(item, ("drawn", None)) for item in self.items], dtype=object).reshape(-1, 2)
        state_M, label_M, never_M = known[:, 0], known[:, 1], pd.isna(self.large)
        is_loss_M = (state_M == "skipped") | ((label_M == self.large) & (label_M != self.small))
        return replace(self.units, answered=never_M | (state_M != "drawn"), lost=never_M | is_loss_M)

    def num_labels(self, states: LabelStates) -> int:
        """How many of the items a person has labelled or skipped that the large model answered."""
        answered_items = self.items[~pd.isna(self.large)]
        return sum(states.get(item, ("drawn", None))[0] != "drawn" for item in answered_items)

    def result(self, states: LabelStates) -> LabelledTest:
        """The test at the searched threshold."""
        return LabelledTest(self.labelled(states), self.epsilon, self.delta)

    def certified(self, states: LabelStates) -> Decision:
        """The searched decision if the labels certify it, or else the closest stricter decision that they certify."""
        lowest = lowest_certified(self.labelled(states), self.decision.cut, self.epsilon, self.delta)
        return self.decision if lowest == self.decision.cut else Decision.of(lowest)


@dataclass(frozen=True)
class Standing:
    """How far the labels so far certify the searched policy; without units, they certify nothing.

    `bound` is the upper end of the accuracy lost, for the worst decision of the policy. No further label is needed once
    `certified`. `stricter` says that the labels certify a policy that keeps less than the searched one. `num_open`,
    `num_labelled` and `num_skipped` count the items.
    """

    certified: bool
    stricter: bool
    bound: float
    epsilon: float
    num_open: int
    num_labelled: int
    num_skipped: int

    @classmethod
    def of(cls, tests: Sequence[LabelTest], states: LabelStates) -> Standing:
        """From the tests of all decisions."""
        results = [test.result(states) for test in tests]
        is_certified = bool(results) and all(result.certified for result in results)
        item_states = [state for state, _ in states.values()]
        return cls(
            certified=is_certified,
            stricter=not is_certified and any(test.certified(states) != ESCALATE_ALL for test in tests),
            bound=max((result.bound for result in results), default=0.0),
            epsilon=max((test.epsilon for test in tests), default=0.0),
            num_open=item_states.count("drawn"),
            num_labelled=item_states.count("labelled"),
            num_skipped=item_states.count("skipped"),
        )


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
    traffic = window.traffic(plan.floor)
    disputed_N = traffic.asked & traffic.disagrees & (traffic.score > decision.cut)
    never_N = disputed_N & ~window.answered  # no label could tell whether the large model would have been right
    drawn_N = never_N | (disputed_N & plan.drawn(window))
    units = LabelledUnits.of(
        traffic,
        drawn=drawn_N,
        label_probability=np.where(never_N, 1.0, plan.probability(window)),
        order=plan.order(window),
        answered=never_N,
        lost=never_N,
        floor=plan.floor,
        noise=plan.noise,
    )
    delta = plan.delta / (1 + len(plan.policy.task_decisions))
    columns = (column[drawn_N] for column in (window.items, window.label, window.large_label))
    return LabelTest(task, decision, plan.epsilon, delta, units, *columns)
