"""Where `kcm.select_scored` spends its calls. A forecast: it decides what is bought, never what is proved.

Shapes: N rows in rank order, the likeliest positive first; M of them not bought yet.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import bdtr, bdtrc, bdtrik, expit, gammaincinv
from scipy.stats import poisson

from kcm.certification.finite import fewest_drawn

_ERRORS = np.array([0, 1, 2, 3, 4, 6, 8, 11, 15, 20, 27, 36, 48])
_LATER = 0.8  # share of the positives still to be bought that the allowed errors of a precision count on
_UNVERIFIED = 0.02  # positives that an error costs: equal plans return fewer errors
_DOUBT = (0.7, 1.0, 1.5)  # of the expected errors: a pilot says little about few
_QUANTILES = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
_TOP_SHARES = (0.05, 0.1, 0.2, 0.4)  # of the calls, for the draw among the first rows
_TAIL_SHARES = (1.0, 0.7, 0.4, 0.2)  # of the other calls, for the draw among the last rows
_POWERS = np.array([0.98, 0.93, 0.8, 0.6])  # chances that the draw among the first rows finds enough
_GRID = np.linspace(0, 1, 33)
_BEYOND = gammaincinv(_ERRORS[:, None] + 1.0, _QUANTILES)  # drawn positives behind the last row that is kept

Floats = NDArray[np.float64]


def positive_rate(rank: NDArray[np.int64], positive: NDArray[np.bool_], num_rows: int) -> Floats:
    """P(positive) of every rank [N] = h / (1 + (rank / r)^b), the maximum a posteriori given the bought rows.

    log r ~ N(log(N / 20), 3^2), log b ~ N(log 2, 1), logit h ~ N(3, 1.5^2). It depends on the order of the scores only.
    """
    log_rank, start = np.log(rank + 1.0), np.array([np.log(num_rows / 20), np.log(2.0), 3.0])
    scale = np.array([3.0, 1.0, 1.5])

    def rate(parameters: Floats, log: Floats) -> Floats:
        middle, steepness, top = parameters
        return np.clip(expit(top) * expit(np.exp(steepness) * (middle - log)), 1e-9, 1 - 1e-9)

    def loss(parameters: Floats) -> float:
        p = rate(parameters, log_rank)
        prior = float((((parameters - start) / scale) ** 2).sum()) / 2
        return prior - float(np.log(np.where(positive, p, 1 - p)).sum())

    best = minimize(loss, start, method="Nelder-Mead", options={"maxiter": 600}).x
    return rate(best, np.log(np.arange(1.0, num_rows + 1)))


@dataclass(frozen=True)
class PrecisionPlan:
    """Draw `drawn` of the first `length` rows; at most `allowed` errors may stay among them."""

    length: int
    drawn: int
    allowed: int


def precision_plan(p_M: Floats, num_bought: int, calls: int, share: float, delta: float) -> PrecisionPlan | None:
    """The plan that should return most positives; None if it is best to buy the first rows and return nothing else.

    `num_bought` positives are bought already.
    """
    positives = np.append(0.0, np.cumsum(p_M))
    num_rows = len(p_M)
    lengths = np.unique(np.geomspace(1, num_rows, 60).astype(np.int64))[:, None]
    later = positives[np.minimum(lengths + calls // 2, num_rows)] - positives[lengths]
    allowed = np.floor((1 - share) * (num_bought + lengths - _ERRORS + _LATER * later)).astype(np.int64).clip(0)
    drawn = fewest_drawn(lengths, _ERRORS, allowed, delta)
    possible = (drawn <= np.minimum(lengths, calls)) & (allowed > 0)
    errors = lengths - positives[lengths]
    passes = np.mean([poisson.cdf(_ERRORS, doubt * errors * drawn / lengths) for doubt in _DOUBT], axis=0)
    rest = np.minimum(lengths + np.maximum(calls - drawn, 0), num_rows)
    value = passes * (positives[rest] - _UNVERIFIED * errors) + (1 - passes) * positives[min(calls, num_rows)]
    value = np.where(possible, value, -np.inf)
    i, j = np.unravel_index(int(value.argmax()), value.shape)
    if value[i, j] <= positives[min(calls, num_rows)]:
        return None
    return PrecisionPlan(int(lengths[i, 0]), int(drawn[i, j]), int(allowed[i, j]))


@dataclass(frozen=True)
class RecallPlan:
    """Draw `top_drawn` of the first `top` rows, then `tail_drawn` of the last `tail`, with `afforded` positives."""

    top: int
    top_drawn: int
    tail: int
    tail_drawn: int
    afforded: int


def recall_plan(p_M: Floats, num_bought: int, calls: int, share: float, delta: float) -> RecallPlan | None:
    """The plan with the best expected precision; None if no plan is expected to leave a row out."""
    positives, num_rows = np.append(0.0, np.cumsum(p_M)), len(p_M)
    table = _Forecast(positives, np.arange(num_rows + 1) - positives, -(positives[-1] - positives), num_bought, calls)
    tops = np.unique(np.geomspace(min(10, num_rows), num_rows, 14).astype(np.int64))[:-1]
    starts = np.unique(np.geomspace(min(10, num_rows), num_rows, 20).astype(np.int64))[:-1]
    base = (num_bought + positives[-1]) / num_rows
    best, best_value = None, base
    for top, top_share in product(tops.tolist(), _TOP_SHARES):
        top_drawn = min(top, int(top_share * calls))
        for start, tail_share in product(starts[starts >= top].tolist(), _TAIL_SHARES):
            tail_drawn = min(num_rows - start, int(tail_share * (calls - top_drawn)))
            plan = RecallPlan(top, top_drawn, num_rows - start, tail_drawn, 0)
            power = table.power(plan, share, delta)
            if power.max() == 0:
                continue
            value = power * table.precision(plan) + (1 - power) * base
            if value.max() > best_value:
                best_value = float(value.max())
                best = replace(plan, afforded=int(_ERRORS[value.argmax()]))
    return best


@dataclass(frozen=True)
class _Forecast:
    """Expected positives and negatives [M + 1] before every rank, and minus the positives from there on.

    `num_bought` positives are bought already, and `calls` are left.
    """

    positives: Floats
    negatives: Floats
    behind: Floats
    num_bought: int
    calls: int

    def power(self, plan: RecallPlan, share: float, delta: float) -> Floats:
        """Chance [X] that the draw among the first rows finds enough, for every number of afforded positives."""
        first = np.ceil(_GRID * plan.top)
        allowed = np.floor((1 - share) / share * (self.num_bought + first))[:, None]
        missed = bdtr(_ERRORS.astype(float), (allowed + _ERRORS + 1).astype(np.int64), plan.tail_drawn / plan.tail)
        missed = np.where(allowed + _ERRORS + 1 > plan.tail, 1.0, missed)
        power = np.zeros(len(_ERRORS))
        if missed[-1].min() > delta:  # not even if all of the first rows are positive
            return power
        rate = min(1.0, self.positives[plan.top] / plan.top)
        enough = bdtrik(1 - _POWERS, plan.top_drawn, rate).clip(0)
        for chance, fewest in zip(_POWERS[::-1], np.floor(enough)[::-1], strict=True):
            lucky = bdtrc(fewest - 1, plan.top_drawn, first / plan.top)[:, None] if fewest > 0 else 1.0
            power[(missed * lucky).max(0) <= delta] = chance
        return power

    def precision(self, plan: RecallPlan) -> Floats:
        """Expected precision [X] of what is returned, for every number of afforded positives."""
        num_rows = len(self.positives) - 1
        start = num_rows - plan.tail
        rate = plan.tail_drawn / plan.tail
        length = np.minimum(np.searchsorted(self.behind, -_BEYOND / max(rate, 1e-9)), num_rows).clip(start)
        dropped = plan.top_drawn * self.negatives[plan.top] / plan.top
        dropped = dropped + rate * (self.negatives[length] - self.negatives[start])
        dropped = dropped + self.calls - plan.top_drawn - plan.tail_drawn
        right = self.num_bought + self.positives[length]
        return np.asarray((right / (right + np.maximum(0, self.negatives[length] - dropped))).mean(1))
