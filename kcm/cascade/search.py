"""The search for a policy: of one gate and one scope, the thresholds that call the large model least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kcm.cascade.frontier import Frontier
from kcm.cascade.gate import Gate
from kcm.cascade.policy import Decision, Policy
from kcm.cascade.scored import ScoredOutcomes

Scope = Literal["global", "per_task"]


@dataclass(frozen=True)
class Found:
    """A policy with what it reaches on the rows it was searched on.

    `area` is the accuracy integrated over the call rate; `calls_saved` the share of rows kept at the allowed loss.
    """

    policy: Policy
    area: float
    calls_saved: float


def find_policy(rows: ScoredOutcomes, gate: Gate, scope: Scope, max_loss: float) -> Found:
    """The cheapest thresholds that lose at most `max_loss` accuracy against large-only, over all rows or in every task.

    `rows` are validate rows under prompt `none`, with this gate's scores (out-of-fold ones where its head was fitted
    on the same rows).
    """
    common = Frontier.of(rows)
    best = common.cheapest(max_loss)
    policy = Policy(
        gate=gate.name,
        temperature=gate.temperature,
        deferral_weight=gate.deferral_weight,
        decision=Decision.of(best.threshold),
    )
    if scope == "global":
        return Found(policy, common.area(), 1 - best.call_rate)
    parts = rows.by_task()
    frontiers = {task: Frontier.of(part) for task, part in parts.items()}
    points = {task: frontier.cheapest(max_loss) for task, frontier in frontiers.items()}
    shares: NDArray[np.float64] = np.array([len(part) for part in parts.values()]) / len(rows)
    return Found(
        policy.model_copy(update={"task_decisions": {t: Decision.of(p.threshold) for t, p in points.items()}}),
        float(shares @ [frontier.area() for frontier in frontiers.values()]),
        float(shares @ [1 - point.call_rate for point in points.values()]),
    )
