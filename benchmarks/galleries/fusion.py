"""Fusion of the scores of two rankers.

Shapes: Q queries, K items that are scored for a query.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp


class TwoRankers(NamedTuple):
    """The scores of two rankers, standardised within the query, and which items are right, [Q, K] each."""

    first: NDArray[np.float64]
    second: NDArray[np.float64]
    relevant: NDArray[np.bool_]

    def fused(self, weight: float) -> NDArray[np.float64]:
        """The first ranker's scores plus `weight` times the second's, [Q, K]."""
        return self.first + weight * self.second


def standardised(scores_QK: NDArray[np.float64]) -> NDArray[np.float64]:
    """Zero mean and unit deviation within every query."""
    centred_QK = scores_QK - scores_QK.mean(1, keepdims=True)
    return np.asarray(centred_QK / np.maximum(centred_QK.std(1, keepdims=True), 1e-12))


def fit_weight(parts: Sequence[TwoRankers]) -> float:
    """The weight of the second ranker's scores that maximises the likelihood of the right items.

    A conditional logit model (McFadden, 1974) of the right item of a query: P(item) is proportional to exp(a first + b
    second), the weight is b / a, at least 0. Its likelihood is smooth, where R@1 jumps with single queries. Queries
    without a right item among the K are left out; 0 where there are no others.
    """
    usable = [part for each in parts if len((part := _with_a_right_item(each)).first)]
    if not usable:
        return 0.0

    def loss(slopes_2: NDArray[np.float64]) -> float:
        return float(np.concatenate([_negative_log_likelihood(part, *slopes_2) for part in usable]).mean())

    first, second = minimize(loss, [1.0, 0.0], method="L-BFGS-B", bounds=[(1e-3, 1e2), (0.0, 1e2)]).x
    return float(second / first)


def _with_a_right_item(part: TwoRankers) -> TwoRankers:
    usable_Q = part.relevant.any(1)
    return TwoRankers(part.first[usable_Q], part.second[usable_Q], part.relevant[usable_Q])


def _negative_log_likelihood(part: TwoRankers, first: float, second: float) -> NDArray[np.float64]:
    """Minus the log-probability that a right item is chosen, [Q]."""
    utility_QK = first * part.first + second * part.second
    right_Q = logsumexp(np.where(part.relevant, utility_QK, -np.inf), axis=1)
    return np.asarray(logsumexp(utility_QK, axis=1) - right_Q)
