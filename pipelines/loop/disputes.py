"""Labels on the disagreements of a frozen challenger: which items a person is asked about, and what the labels certify.

What is drawn, with which probability and in which order of units are hashes of the attempt's name: frozen before a
label is seen, the same on every machine, and the same where an answer of the large model comes later than the draw. An
item whose large answer was asked for with probability pi is drawn with rho = floor / pi, so that all weigh alike.

Shapes: N decisions of certify units, in the order of their numbers.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from kcm.cascade.policy import ESCALATE_ALL, Decision, Policy
from kcm.certification.labelled import LabelledUnits
from kcm.config import Config
from kcm.tasks.hashing import draw
from pipelines.loop.judged import JudgedWindow
from pipelines.serve.log.inbox import DisputedItem, LabelTest, State


class InboxPlan(Config):
    """What a challenger's labels are drawn for, frozen before the first is seen."""

    attempt: str = Field(description="Names the draw, and the look in the ledger.")
    application: str
    version: str = Field(description="The challenger, NAME/NUMBER.")
    policy: Policy = Field(description="The one that the search found, which the labels are to certify.")
    labels: tuple[str, ...] = Field(description="The labels that may be given.")
    floor: float = Field(gt=0, le=1, description="The least audit share of the window.")
    epsilon: float = Field(gt=0, lt=1, description="Accuracy that may be lost against large-only.")
    delta: float = Field(gt=0, lt=1, description="What the look may spend.")
    noise: float = Field(0.0, ge=0, lt=1, description="The largest probability that a label is wrong.")

    def probability(self, judged: JudgedWindow) -> NDArray[np.float64]:
        """rho of each item, [N]."""
        return np.asarray(self.floor / judged.probability)

    def drawn(self, judged: JudgedWindow) -> NDArray[np.bool_]:
        """Whether each item is put before a person where it is disputed, [N]."""
        draws = np.array([draw(0, f"label drawn {self.attempt}", item) for item in judged.items])
        return np.asarray(draws < self.probability(judged))

    def order(self, judged: JudgedWindow) -> NDArray[np.float64]:
        """The place of each item's unit, [N]."""
        place = {unit: draw(0, f"label order {self.attempt}", str(unit)) for unit in pd.unique(judged.unit)}
        return np.array([place[unit] for unit in judged.unit], dtype=np.float64)


class GivenLabels(Config):
    """What people said of an inbox by the time that its labels sufficed: all that a labelled certificate rests on."""

    plan: InboxPlan
    answers: dict[str, tuple[State, str | None]] = Field(description="State and label by `request id/item`.")


def drawn_items(judged: JudgedWindow, plan: InboxPlan) -> list[dict[str, object]]:
    """The disagreements that a certificate of the plan's policy needs labels of, in their order, as rows of the inbox.

    They are put before people from the first on, so that every label decides as many units as it can.
    """
    disputed_N = judged.answered & judged.disagrees & judged.keeps(plan.policy)
    chosen = np.flatnonzero(disputed_N & plan.drawn(judged))
    chosen = chosen[np.argsort(plan.order(judged)[chosen], kind="stable")]
    rows, rho_N, label_N = judged.rows, plan.probability(judged), judged.label
    return [
        {
            "request_id": rows["request_id"].iloc[place],
            "item": int(rows["item"].iloc[place]),
            "probability": float(rho_N[place]),
            "position": position,
            "small_label": label_N[place],
        }
        for position, place in enumerate(chosen)
    ]


def label_tests(judged: JudgedWindow, plan: InboxPlan) -> tuple[LabelTest, ...]:
    """The tests of every decision of the plan's policy that keeps something, before a label is given.

    Their results may be asked for after each label: a test holds at all times.
    """
    own = plan.policy.task_decisions
    decisions = {None: plan.policy.decision} | own
    parts = {task: judged.of_task(task, own) for task, decision in decisions.items() if decision != ESCALATE_ALL}
    return tuple(_label_test(task, decisions[task], rows, plan) for task, rows in parts.items() if len(rows))


def _label_test(task: str | None, decision: Decision, judged: JudgedWindow, plan: InboxPlan) -> LabelTest:
    """The test of one decision, with the disagreements above its threshold that are drawn."""
    traffic, rho_N, answered_N = judged.traffic(plan.floor), plan.probability(judged), judged.answered
    disputed_N = traffic.asked & traffic.disagrees & (traffic.score > decision.cut)
    never_N = disputed_N & ~answered_N  # no label could tell whether the large model would have been right
    drawn_N = never_N | (disputed_N & plan.drawn(judged))
    units = LabelledUnits.of(
        traffic,
        drawn=drawn_N,
        label_probability=np.where(never_N, 1.0, rho_N),
        order=plan.order(judged),
        answered=never_N,
        lost=never_N,
        floor=plan.floor,
    )
    columns = judged.items, judged.label, judged.large_label
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
