"""Metrics of retrieval: whether one of the right items is among the first of a ranking.

R@K is the share of queries for which it is (Karpathy and Fei-Fei, arXiv 1412.2306, section 4.1).
Shapes: Q queries, G items of the gallery.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def first_right(scores_QG: ArrayLike, relevant_QG: ArrayLike) -> NDArray[np.int64]:
    """Rank, from 0, of every query's first right item, [Q]; G where the gallery holds none.

    Of equal scores the right item comes last: a ranking that cannot tell items apart earns nothing by luck.
    """
    scores, relevant = np.asarray(scores_QG, dtype=np.float64), np.asarray(relevant_QG, dtype=bool)
    best_Q1 = np.where(relevant, scores, -np.inf).max(axis=1, keepdims=True)
    ahead_Q = ((scores >= best_Q1) & ~relevant).sum(axis=1)
    return np.asarray(np.where(relevant.any(axis=1), ahead_Q, scores.shape[1]), dtype=np.int64)


def recall_at(rank_Q: ArrayLike, k: int) -> float | None:
    """R@K from the ranks of the first right items, [Q]; None without queries."""
    ranks = np.asarray(rank_Q)
    return float((ranks < k).mean()) if len(ranks) else None
