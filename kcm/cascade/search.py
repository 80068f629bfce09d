"""The search for a policy: the thresholds with the fewest large calls, for one gate and one scope."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from kcm.cascade.frontier import Frontier, FrontierPoint
from kcm.cascade.gate import Gate, GateName
from kcm.cascade.novelty import NovelRows
from kcm.cascade.outcome_rows import ScoredOutcomes
from kcm.cascade.policy import Decision, Goal, Policy
from kcm.config import Config

Scope = Literal["global", "per_task"]


class TuneConfig(Config):
    """The search space; a list holds the values to choose from, and a single value fixes the choice."""

    goal: Goal = Field(
        "calls",
        description="What to choose by, among policies that keep the promise. calls: the fewest large calls;"
        " accuracy: the highest accuracy, then the fewest calls.",
    )
    num_trials: int = Field(
        16, ge=1, description="Trials for each collaborator; one solved in closed form tries all gates instead."
    )
    max_loss: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Accuracy that the searched threshold may lose on the rows that choose it. null: the certificate's"
        " epsilon, so that as much is kept as can be certified. The goal accuracy ignores it.",
    )
    novel_share: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Share of traffic assumed to have unknown classes, simulated by leaving out known classes; for"
        " `analytic` and `slda` with at least ten classes. null: .05 in an update, none in a run.",
    )
    gates: tuple[GateName, ...] = Field(
        ("confidence", "signals"),
        min_length=1,
        description="Gate scores: confidence, signals, or your own.",
    )
    scopes: tuple[Scope, ...] = Field(
        ("global", "per_task"), min_length=1, description="One threshold, or one per task."
    )
    large_weights: tuple[float, ...] = Field((0.0, 1.0, 3.0), min_length=1, description="Weights of L_ls.")
    judge_weights: tuple[float, ...] = Field((0.0, 0.5), min_length=1, description="Weights of L_js.")
    learning_rates: tuple[float, ...] | None = Field(
        None,
        min_length=1,
        description="Peak rates of the optimizer; null: 0.0003, 0.001, 0.003 for adamw, and 0.03, 0.1, 0.3 for sgd.",
    )

    def allowed_loss(self, epsilon: float) -> float:
        """The accuracy that a searched threshold may lose if a certificate promises `epsilon`."""
        return epsilon if self.max_loss is None else self.max_loss


@dataclass(frozen=True)
class SearchResult:
    """A policy and its figures on the rows that it was searched on.

    `area` is the accuracy integrated over the call rate; `calls_saved` the share of rows kept at the allowed loss.
    """

    policy: Policy
    area: float
    calls_saved: float


def find_policy(
    rows: ScoredOutcomes,
    gate: Gate,
    scope: Scope,
    max_loss: float,
    novel: NovelRows | None = None,
    *,
    goal: Goal = "calls",
) -> SearchResult:
    """The cheapest thresholds that lose at most `max_loss` accuracy against large-only, over all rows or in every task.

    With the goal `accuracy`, the most accurate ones instead. `rows` are validate rows with this
    gate's scores (out-of-fold scores if its head was fitted on the same rows). `novel` rows simulate traffic of
    unknown classes, in every task.
    """

    def best_of(frontier: Frontier) -> FrontierPoint:
        return frontier.most_accurate(novel) if goal == "accuracy" else frontier.cheapest(max_loss, novel)

    common = Frontier.of(rows)
    best = best_of(common)
    policy = Policy(
        gate=gate.name,
        temperature=gate.temperature,
        farthest=gate.reach and gate.reach.farthest,
        decision=Decision.of(best.threshold),
        goal=goal,
    )
    if scope == "global":
        return SearchResult(policy, common.area(), 1 - best.call_rate)
    parts = rows.by_task()
    frontiers = {task: Frontier.of(part) for task, part in parts.items()}
    points = {task: best_of(frontier) for task, frontier in frontiers.items()}
    shares: NDArray[np.float64] = np.array([len(part) for part in parts.values()]) / len(rows)
    return SearchResult(
        policy.model_copy(update={"task_decisions": {t: Decision.of(p.threshold) for t, p in points.items()}}),
        float(shares @ [frontier.area() for frontier in frontiers.values()]),
        float(shares @ [1 - point.call_rate for point in points.values()]),
    )
