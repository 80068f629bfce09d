"""Retrieval as a cascade: the small model ranks the gallery; where it is not sure, the large model ranks the top anew.

A query becomes a row of an ordinary outcome table, so that gates, search and certificates are those of all other
tasks: its labels are the places 1 to k of the small model's ranking and `elsewhere`, and it is right to put a right
item first. The prompt modes are

    none   the large model alone scores the whole gallery: large-only
    hard   it scores the small model's first k alone: the candidate list of a hard prompt
    soft   the same, its scores and the small model's standardised within the query and added, as a soft prompt does

The cost of an answer is the number of pairs that the large model scores for it.
Shapes: Q queries, G items of the gallery, K = k.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kcm.cascade.table import OutcomeTable, Split
from kcm.errors import DataError
from kcm.large.prompting.prompts import PromptMode

from .fusion import TwoRankers, standardised

ELSEWHERE = "elsewhere"


@dataclass(frozen=True, kw_only=True, eq=False)
class Gallery:
    """The scores of Q queries over one gallery, float64 [Q, G] each, larger is likelier; `relevant` tells the right.

    `ids` [Q] name the queries, `group` [Q] what they were drawn with; `way` says what is sought by what. Raises
    DataError for shapes that differ, for NaN and for a gallery of fewer than two items.
    """

    small: NDArray[np.float64]
    judge: NDArray[np.float64]
    large: NDArray[np.float64]
    relevant: NDArray[np.bool_]
    ids: NDArray[np.object_]
    group: NDArray[np.object_]
    task: str
    split: Split
    way: str

    def __post_init__(self) -> None:
        for name in ("small", "judge", "large"):
            scores_QG = getattr(self, name)
            if scores_QG.shape != self.relevant.shape or not np.isfinite(scores_QG).all():
                raise DataError(
                    f"{name} scores of shape {scores_QG.shape} must be finite, of shape {self.relevant.shape}",
                    where=f"gallery of task {self.task!r}",
                )
        if self.relevant.shape[1] < 2:
            raise DataError("a gallery needs at least two items", where=f"task {self.task!r}, split {self.split}")

    def top(self, k: int) -> NDArray[np.intp]:
        """The small model's first k items of every query, [Q, K]; of equal scores the earlier item."""
        return self._order_QG[:, :k]

    @cached_property
    def _order_QG(self) -> NDArray[np.intp]:
        return np.argsort(-self.small, axis=1, kind="stable")

    def shown(self, k: int) -> TwoRankers:
        """The scores of the small model's first k items of every query, by the large model and by the small one."""
        top_QK = self.top(k)
        large_QK, small_QK = (standardised(np.take_along_axis(each, top_QK, 1)) for each in (self.large, self.small))
        return TwoRankers(large_QK, small_QK, np.take_along_axis(self.relevant, top_QK, 1))

    def large_scores(self, mode: PromptMode, k: int, weight: float) -> NDArray[np.float64]:
        """What the large model's ranking under `mode` goes by, [Q, G]; -inf where it is shown no item.

        `weight` is that of the small model's scores under `soft`.
        """
        if mode == "none":
            return self.large
        scores_QK = self.shown(k).fused(weight if mode == "soft" else 0.0)
        scores_QG = np.full(self.large.shape, -np.inf)
        np.put_along_axis(scores_QG, self.top(k), scores_QK, 1)
        return scores_QG

    def small_ranks(self) -> NDArray[np.int64]:
        """Rank of the first right item in the small model's ranking, [Q]."""
        return first_right(self.small, self.relevant)

    def ranks(self, mode: PromptMode, k: int, weight: float) -> NDArray[np.int64]:
        """Ranks of the first right items, [Q]: what is shown ordered by the large model, the rest by the small one."""
        scores_QG = self.large_scores(mode, k, weight)
        # Below all that was shown, in the small model's order.
        rest_QG = standardised(self.small) + np.where(np.isfinite(scores_QG), scores_QG, np.inf).min() - 1e6
        return first_right(np.where(np.isfinite(scores_QG), scores_QG, rest_QG), self.relevant)

    def outcomes(self, mode: PromptMode, k: int, weight: float) -> OutcomeTable:
        """The queries under `none`, then under `mode` where it is another one."""
        top_QK = self.top(k)
        num_queries, shown = top_QK.shape
        right_QK = np.take_along_axis(self.relevant, top_QK, 1)
        label_Q = np.where(right_QK.any(1), right_QK.argmax(1), shown)
        modes: list[PromptMode] = list(dict.fromkeys(("none", mode)))
        return OutcomeTable(
            id=np.tile(np.array([f"{query} ({self.way})" for query in self.ids], dtype=object), len(modes)),
            task=np.full(num_queries * len(modes), self.task, dtype=object),
            split=np.full(num_queries * len(modes), self.split, dtype=object),
            group=np.tile(self.group, len(modes)),
            label=np.tile(label_Q, len(modes)),
            judge_logits=np.tile(self._places(self.judge, top_QK), (len(modes), 1)),
            small_logits=np.tile(self._places(self.small, top_QK), (len(modes), 1)),
            large_label=np.concatenate([self._answer(each, k, weight, top_QK, label_Q) for each in modes]),
            large_probabilities=np.full((num_queries * len(modes), shown + 1), np.nan),
            large_cost=np.repeat([self.relevant.shape[1] if each == "none" else shown for each in modes], num_queries),
            large_error=np.zeros(num_queries * len(modes), dtype=bool),
            prompt=np.repeat(np.array(modes, dtype=object), num_queries),
            label_names=(*(str(place) for place in range(1, shown + 1)), ELSEWHERE),
        )

    def _places(self, scores_QG: NDArray[np.float64], top_QK: NDArray[np.intp]) -> NDArray[np.float64]:
        """Scores by place, [Q, K + 1]; elsewhere is no answer of the small side."""
        return np.pad(np.take_along_axis(scores_QG, top_QK, 1), ((0, 0), (0, 1)), constant_values=-np.inf)

    def _answer(
        self, mode: PromptMode, k: int, weight: float, top_QK: NDArray[np.intp], label_Q: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """The place of what the large model puts first, [Q]; any right item counts as the label, -1 is a wrong one."""
        first_Q1 = self.large_scores(mode, k, weight).argmax(1)[:, None]
        is_right_Q = np.take_along_axis(self.relevant, first_Q1, 1)[:, 0]
        place_QK = top_QK == first_Q1
        place_Q = np.where(place_QK.any(1), place_QK.argmax(1), -1)
        return np.where(is_right_Q, label_Q, place_Q)


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
