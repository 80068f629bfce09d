"""The exact trade-off between large-model calls and accuracy, over all thresholds.

A threshold t keeps the rows with gate score > t. Rows with equal scores move together, so a table with K distinct
scores has K + 1 routes, found by one sort.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kcm.cascade.novelty import NovelRows
from kcm.cascade.outcome_rows import ScoredOutcomes
from kcm.cascade.thresholds import FAR, midway
from kcm.errors import DataError
from kcm.metrics.routing import thinned

CURVE_POINTS = 300  # most points of a stored frontier


@dataclass(frozen=True)
class FrontierPoint:
    """One route: -inf keeps all, +inf escalates all. `loss` is large-only accuracy minus the cascade's."""

    threshold: float
    call_rate: float
    accuracy: float
    loss: float


@dataclass(frozen=True, eq=False)
class Frontier:
    """All routes of a table from `escalate all` (first) to `keep all` (last); columns have shape [K + 1].

    Counts are exact integers out of `num_rows`. Escalating all means the large model alone.
    """

    scores: NDArray[np.float64]  # [K], the distinct gate scores, descending
    num_kept: NDArray[np.int64]
    num_correct: NDArray[np.int64]
    num_rows: int

    @classmethod
    def of(cls, rows: ScoredOutcomes) -> Frontier:
        """Sort once, O(N log N). Raises DataError when there are no rows."""
        if len(rows) == 0:
            raise DataError("no rows to route", where="frontier")
        order = np.argsort(rows.score)[::-1]
        score = rows.score[order]
        gain = rows.small_correct.view(np.int8)[order] - rows.large_correct.view(np.int8)[order]
        last = np.append(np.flatnonzero(score[1:] != score[:-1]), len(rows) - 1)  # last row of each run of ties
        num_right = int(rows.large_correct.sum())
        return cls(
            scores=score[last],
            num_kept=np.append(0, last + 1),
            num_correct=np.append(num_right, num_right + np.cumsum(gain, dtype=np.int64)[last]),
            num_rows=len(rows),
        )

    @cached_property
    def thresholds(self) -> NDArray[np.float64]:
        """Descending from +inf to -inf, [K + 1]; midway between adjacent scores."""
        return np.concatenate([[np.inf], midway(self.scores[:-1], self.scores[1:]), [-np.inf]])

    @property
    def call_rate(self) -> NDArray[np.float64]:
        """Share of rows escalated, [K + 1], descending from 1 to 0."""
        return np.asarray(1 - self.num_kept / self.num_rows)

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """Accuracy of the cascade, [K + 1]."""
        return np.asarray(self.num_correct / self.num_rows)

    @property
    def large_accuracy(self) -> float:
        """Accuracy of escalating everything."""
        return int(self.num_correct[0]) / self.num_rows

    @property
    def small_accuracy(self) -> float:
        """Accuracy of keeping everything."""
        return int(self.num_correct[-1]) / self.num_rows

    def curve(self) -> dict[str, NDArray[np.float64]]:
        """Columns `call_rate`, `accuracy` and `threshold` of at most `CURVE_POINTS` routes, the two ends among them."""
        points = thinned(len(self.num_kept), CURVE_POINTS)
        return {
            "call_rate": self.call_rate[points],
            "accuracy": self.accuracy[points],
            "threshold": self.thresholds[points],
        }

    def area(self) -> float:
        """Accuracy integrated over the call rate; between two routes, rows are mixed at random."""
        return float(-np.trapezoid(self.accuracy, self.call_rate))

    def at(self, threshold: float) -> FrontierPoint:
        """The route of `threshold` on these rows."""
        return self.point(int(np.searchsorted(-self.scores, -threshold)), threshold)

    def cheapest(self, max_loss: float, novel: NovelRows | None = None) -> FrontierPoint:
        """The route with the fewest calls among those that lose at most `max_loss` accuracy against large-only.

        With `novel`, a share of the traffic is assumed to have unknown classes; each such row that is kept is lost.
        """
        return self.point(int(np.flatnonzero(self._loss(novel) <= max_loss + 1e-9 / self.num_rows)[-1]))

    def most_accurate(self, novel: NovelRows | None = None) -> FrontierPoint:
        """The route that loses least, counted as in `cheapest`; among equal routes, the one with the fewest calls."""
        loss = self._loss(novel)
        return self.point(int(np.flatnonzero(loss <= loss.min() + 1e-9 / self.num_rows)[-1]))

    def _loss(self, novel: NovelRows | None) -> NDArray[np.float64]:
        """Accuracy that every route loses against large-only, [K + 1]; infinite if it keeps rows beyond the reach."""
        loss = (self.num_correct[0] - self.num_correct) / self.num_rows
        if novel:
            loss = (1 - novel.share) * loss + novel.share * novel.kept(self.thresholds)
        return np.asarray(np.where(self.scores[-1] == FAR and np.isneginf(self.thresholds), np.inf, loss))

    def point(self, index: int, threshold: float | None = None) -> FrontierPoint:
        """Route number `index`, described by its own threshold or by another threshold that routes alike."""
        correct = int(self.num_correct[index])
        return FrontierPoint(
            threshold=float(self.thresholds[index]) if threshold is None else threshold,
            call_rate=1 - int(self.num_kept[index]) / self.num_rows,
            accuracy=correct / self.num_rows,
            loss=(int(self.num_correct[0]) - correct) / self.num_rows,
        )
