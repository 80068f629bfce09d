"""Metrics of a router between a small and a large model (RouteLLM, arXiv 2406.18665).

A deferral curve is a pair of arrays, call rate and accuracy, one entry per threshold, with the small model alone at
call rate 0 and the large model alone at call rate 1. If the large model is not better than the small one, there is no
gap to recover: metrics in units of the gap are None, and the best route never escalates.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def performance_gap_recovered(accuracy: float, small_accuracy: float, large_accuracy: float) -> float | None:
    """PGR = (accuracy - small) / (large - small) (arXiv 2406.18665); None unless large > small."""
    gap = large_accuracy - small_accuracy
    return (accuracy - small_accuracy) / gap if gap > 0 else None


def apgr(call_rate: ArrayLike, accuracy: ArrayLike) -> float | None:
    """Average PGR, its integral over the call rate (arXiv 2406.18665); a random router has 1/2."""
    rate_K, accuracy_K = _curve(call_rate, accuracy)
    area = float(np.trapezoid(accuracy_K, rate_K))
    return performance_gap_recovered(area, float(accuracy_K[0]), float(accuracy_K[-1]))


def auroc(score: ArrayLike, correct: ArrayLike) -> float | None:
    """Probability that a right row scores above a wrong row, ties count half; None if all are right or all wrong."""
    correct_N = np.asarray(correct, dtype=bool)
    if correct_N.all() or not correct_N.any():
        return None
    from sklearn.metrics import roc_auc_score  # takes a second to import, and replicas and workers do not need it

    return float(roc_auc_score(correct_N, np.asarray(score, dtype=np.float64)))


def oracle_router(small_correct: ArrayLike, large_correct: ArrayLike) -> tuple[float, float]:
    """Accuracy and call rate of the best router on one or more rows.

    It knows who is right, and calls only if the large model is right and the small one wrong.
    """
    small_N, large_N = np.asarray(small_correct, dtype=bool), np.asarray(large_correct, dtype=bool)
    return float((small_N | large_N).mean()), float((large_N & ~small_N).mean())


def cost_saved(kept: ArrayLike, large_cost: ArrayLike, small_cost: ArrayLike = 0.0) -> float | None:
    """Share of the cost of large-only that the cascade saves.

    `kept` bool [N] and `large_cost` [N]. The small side is paid for every row: `small_cost` is [N] or one figure per
    row, in the same unit. Negative if the small side costs more than it saves; None if the large model is free.
    """
    kept_N, large_N = np.asarray(kept, dtype=bool), np.asarray(large_cost, dtype=np.float64)
    total = float(large_N.sum())
    if total == 0:
        return None
    small = float(np.broadcast_to(np.asarray(small_cost, dtype=np.float64), kept_N.shape).sum())
    return 1 - (small + float(large_N[~kept_N].sum())) / total


def thinned(count: int, max_points: int) -> NDArray[np.intp]:
    """At most `max_points` positions among `count` points of a curve, evenly spaced, with the first and the last."""
    return np.unique(np.linspace(0, count - 1, min(count, max_points)).astype(np.intp))


def _curve(call_rate: ArrayLike, accuracy: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The curve in the order of the call rate."""
    rate_K, accuracy_K = np.asarray(call_rate, dtype=np.float64), np.asarray(accuracy, dtype=np.float64)
    order = np.argsort(rate_K, kind="stable")
    return rate_K[order], accuracy_K[order]
