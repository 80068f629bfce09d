"""Labels on the disagreements of a frozen challenger: which are drawn, and what those that people give certify.

Shapes: N decisions of certify units, in the order of their numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from kcm.cascade.policy import ESCALATE_ALL, Policy
from kcm.certify.labelled import LabelledTraffic
from kcm.certify.traffic import Traffic
from kcm.errors import DataError
from kcm.tasks.hashing import draw
from pipelines.loop.certify.rows import Rows
from pipelines.serve.log.standing import DisputedItem, LabelTest, outcome


@dataclass(frozen=True)
class LabelDraw:
    """How a frozen challenger's disagreements are drawn for labelling, and in what order units are decided.

    Kept items, whose large answer was asked for with the announced floor, are drawn with `probability`; others the less
    often, the likelier their large answer was. Draws and order are hashes of the attempt's name: known before a label
    is seen, the same on every machine, and the same where an answer of the large model comes later than the draw.
    """

    attempt: str
    probability: float = 1.0

    def probabilities(self, asked_N: NDArray[np.float64], floor: float) -> NDArray[np.float64]:
        """rho of each item, [N], from the probabilities [N] of its large answer."""
        return np.asarray(self.probability * floor / asked_N)

    def drawn(self, items: Sequence[str], probabilities_N: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether each item, `request id/item`, is put before a person where it is disputed, [N]."""
        return np.array([draw(0, f"label drawn {self.attempt}", item) for item in items]) < probabilities_N

    def order(self, units: Sequence[str]) -> NDArray[np.float64]:
        """The place of each item's unit, [N]."""
        place = {unit: draw(0, f"label order {self.attempt}", unit) for unit in dict.fromkeys(units)}
        return np.array([place[unit] for unit in units], dtype=np.float64)


@dataclass(frozen=True)
class DrawnItem:
    """An item that is put before a person, with the probability of that and its place in the frozen order, from 0.

    `small_label` is the answer of the challenger, which the large model disputes.
    """

    request_id: str
    item: int
    probability: float
    position: int
    small_label: str


def drawn_items(
    window: pa.Table,
    scores_N: ArrayLike,
    small_labels_N: Sequence[str],
    policy: Policy,
    *,
    floor: float,
    labels: LabelDraw,
) -> list[DrawnItem]:
    """The disagreements that a certificate of `policy` needs labels of, in their order.

    Arguments as `recertify.certify_window`. They are put before people from the first on, so that every label decides
    as many units as it can.
    """
    rows = Rows.of(window, np.asarray(scores_N, dtype=np.float64), small_labels_N)
    tasks = [None if pd.isna(task) else str(task) for task in rows.table["task"]]
    probability_N = labels.probabilities(rows.table["probability"].to_numpy(dtype=np.float64), floor)
    disputed_N = rows.known & rows.disagrees & policy.keep(rows.score, tasks)
    drawn = np.flatnonzero(disputed_N & labels.drawn(rows.items(), probability_N))
    place_N = labels.order([str(unit) for unit in rows.table["unit"]])
    found = rows.table.iloc[drawn[np.argsort(place_N[drawn], kind="stable")]]
    known = probability_N[found.index], rows.small_label[found.index]
    chosen = enumerate(zip(found["request_id"], found["item"], *known, strict=True))
    return [DrawnItem(request, int(item), float(rho), place, answer) for place, (request, item, rho, answer) in chosen]


def label_tests(
    window: pa.Table,
    scores_N: ArrayLike,
    small_labels_N: Sequence[str],
    policy: Policy,
    epsilon: float,
    *,
    floor: float,
    delta: float,
    labels: LabelDraw,
) -> list[LabelTest]:
    """The tests of every decision of `policy` that keeps something; arguments as `recertify.certify_window`.

    Their results may be asked for after each label: a test holds at all times.
    """
    rows = Rows.of(window, np.asarray(scores_N, dtype=np.float64), small_labels_N)
    share = delta / (1 + len(policy.task_decisions))
    found = []
    for task, decision in ((None, policy.decision), *policy.task_decisions.items()):
        chosen = rows.select(rows.of_task(task, policy.task_decisions))
        if not len(chosen) or decision == ESCALATE_ALL:
            continue
        labelled = labelled_traffic(chosen, chosen.traffic(floor), decision.cut, labels)
        units, drawn = labelled.units, labelled.drawn
        columns = (
            *(np.array(chosen.items(), dtype=object)[drawn], units.place, units.weight, units.score),
            *(chosen.small_label[drawn], chosen.table["large_label"].to_numpy(dtype=object)[drawn]),
        )
        items = tuple(
            DisputedItem(
                id=each,
                place=int(place),
                weight=float(weight),
                score=float(score),
                small_label=small,
                large_label=None if pd.isna(large) else large,
            )
            for each, place, weight, score, small, large in zip(*columns, strict=True)
        )
        found.append(
            LabelTest(
                task=task,
                decision=decision,
                epsilon=epsilon,
                delta=share,
                floor=units.floor,
                num_units=units.num_units,
                items=items,
            )
        )
    return found


def labelled_traffic(rows: Rows, traffic: Traffic, threshold: float, labels: LabelDraw) -> LabelledTraffic:
    """What a person said of the disagreements above `threshold`.

    Raises DataError for an item in the inbox that this attempt cannot have drawn.
    """
    table = rows.table
    rho_N = labels.probabilities(traffic.probability, traffic.floor)
    disputed = traffic.asked & traffic.disagrees & (traffic.score > threshold)
    drawn = disputed & rows.known & labels.drawn(rows.items(), rho_N)
    state = table["inbox_state"].to_numpy(dtype=object)
    shown = pd.notna(state)
    if (strange := shown & ~drawn).any():
        raise DataError(
            f"{strange.sum()} items of the inbox were not drawn by attempt {labels.attempt}, the first is "
            f"{rows.items()[int(np.argmax(strange))]}",
            where="inbox",
            hint="Labels count for the challenger that they were drawn for",
        )
    given = table["inbox_probability"].to_numpy(dtype=np.float64)
    if (shown & ~(np.abs(given - rho_N) < 1e-9)).any():
        raise DataError(
            f"labels were drawn with another probability than attempt {labels.attempt} gave them, or with none",
            where="inbox",
            hint="Volunteered labels cannot certify",
        )
    never = disputed & ~rows.known  # no label could tell whether the large model would have been right
    answered, lost = np.zeros((2, len(rows)), dtype=bool)
    label, large = (table[name].to_numpy(dtype=object) for name in ("inbox_label", "large_label"))
    for place in np.flatnonzero(drawn | never):
        answer = None if never[place] else large[place]
        answered[place], lost[place] = outcome(state[place], label[place], rows.small_label[place], answer)
    return LabelledTraffic(
        traffic=traffic,
        threshold=threshold,
        drawn=drawn | never,
        label_probability=np.where(never, 1.0, rho_N),
        answered=answered,
        lost=lost,
        order=labels.order([str(unit) for unit in table["unit"]]),
        floor=labels.probability * traffic.floor,
    )
