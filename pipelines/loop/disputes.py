"""Labels on the disagreements of a frozen challenger: which items a person is asked about, and what the labels certify.

What is drawn, with which probability and in which order of units are hashes of the attempt's name: frozen before a
label is seen, the same on every machine, and the same where an answer of the large model comes later than the draw. An
item whose large answer was asked for with probability pi is drawn with rho = floor / pi, so that all weigh alike.

Shapes: N decisions of certify units, in the order of their numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from kcm.cascade.policy import ESCALATE_ALL, Policy
from kcm.certify.labelled import LabelledTraffic
from kcm.certify.traffic import Traffic
from kcm.config import Config
from kcm.errors import DataError
from kcm.tasks.hashing import draw
from pipelines.loop.judged import JudgedWindow
from pipelines.serve.log.inbox import DisputedItem, LabelTest, State, outcome


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
    return tuple(_label_tests(judged.with_labels({}), plan))


def _label_tests(judged: JudgedWindow, plan: InboxPlan) -> Iterator[LabelTest]:
    own = plan.policy.task_decisions
    for task, decision in ((None, plan.policy.decision), *own.items()):
        rows = judged.of_task(task, own)
        if not len(rows) or decision == ESCALATE_ALL:
            continue
        labelled = labelled_traffic(rows, rows.traffic(plan.floor), decision.cut, plan)
        units, drawn = labelled.units, labelled.drawn
        columns = rows.items[drawn], units.place, units.weight, units.score, rows.label[drawn], rows.large_label[drawn]
        yield LabelTest(
            task=task,
            decision=decision,
            epsilon=plan.epsilon,
            delta=plan.delta / (1 + len(own)),
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
                for item, place, weight, score, small, large in zip(*columns, strict=True)
            ),
        )


def labelled_traffic(judged: JudgedWindow, traffic: Traffic, threshold: float, plan: InboxPlan) -> LabelledTraffic:
    """What people said of the disagreements above `threshold`; skipped items count as lost.

    Raises DataError for an item in the inbox that this attempt cannot have drawn.
    """
    rho_N, answered_N = plan.probability(judged), judged.answered
    disputed = traffic.asked & traffic.disagrees & (traffic.score > threshold)
    drawn = disputed & answered_N & plan.drawn(judged)
    state, label = (judged.rows[name].to_numpy(dtype=object) for name in ("inbox_state", "inbox_label"))
    shown = pd.notna(state)
    if (strange := shown & ~drawn).any():
        raise DataError(
            f"{strange.sum()} items of the inbox were not drawn by attempt {plan.attempt}, the first is "
            f"{judged.items[int(np.argmax(strange))]}",
            where="inbox",
            hint="Labels count for the challenger that they were drawn for",
        )
    never = disputed & ~answered_N  # no label could tell whether the large model would have been right
    answered, lost = np.zeros((2, len(judged)), dtype=bool)
    for place in np.flatnonzero(drawn | never):
        large = None if never[place] else judged.large_label[place]
        answered[place], lost[place] = outcome(state[place], label[place], judged.label[place], large)
    return LabelledTraffic(
        traffic=traffic,
        threshold=threshold,
        drawn=drawn | never,
        label_probability=np.where(never, 1.0, rho_N),
        answered=answered,
        lost=lost,
        order=plan.order(judged),
        floor=plan.floor,
        noise=plan.noise,
    )
