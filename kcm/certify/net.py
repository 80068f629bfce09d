"""The `net` path: what the cascade loses when the wins of the small model are credited."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kcm.cascade.frontier import Frontier
from kcm.cascade.scored import ScoredOutcomes
from kcm.certify.betting import BettingTest, fewest_betting
from kcm.metrics.intervals import Units

GRID_SIZE = 50


class NetPath:
    """Wins are credited: a row loses D = L_none - correct(cascade), in {-1, 0, 1}; tested by betting.

    D is not monotone in the threshold, so the path runs over a grid frozen on other rows. X = (1 + D) / 2 is tested
    against (1 + epsilon) / 2, in a seeded random order of the units.
    """

    def __init__(
        self, rows: ScoredOutcomes, grid: NDArray[np.float64], epsilon: float, delta: float, seed: int
    ) -> None:
        self._level, self._delta, self._grid = (1 + epsilon) / 2, delta, grid
        self._losses = _ShuffledLosses(rows, seed)
        self.num_units = self._losses.num_units
        self.fewest_units = fewest_betting(self._level, delta)

    def certified(self) -> float:
        """The last threshold of the grid before the first one that fails."""
        certified = math.inf
        for threshold in self._grid:
            if not self._test(threshold).rejects(self._level):
                break
            certified = float(threshold)
        return certified

    def deployable(self, lowest: float, highest: float) -> float | None:
        """Thresholds of the grid alone hold."""
        inside = self._grid[(self._grid >= lowest) & (self._grid <= highest)]
        return float(inside.max()) if len(inside) else None

    def p_value(self, threshold: float) -> float:
        return self._test(threshold).p_value(self._level)

    def upper_bound(self, threshold: float) -> float:
        """Bound on the mean of X, as a bound on the mean of D."""
        return 2 * self._test(threshold).upper_bound() - 1

    def _test(self, threshold: float) -> BettingTest:
        return BettingTest(self._losses.values(threshold), self.num_units, self._delta)


class _ShuffledLosses:
    """Losses of the units in a seeded random order, the rows of a unit side by side."""

    def __init__(self, rows: ScoredOutcomes, seed: int) -> None:
        units = Units(rows.group, len(rows))
        order = np.random.default_rng(seed).permutation(units.count)
        self._starts: NDArray[np.intp] | None = None
        self.num_units = units.count
        if units.grouped:
            self._starts = np.append(0, np.cumsum(units.size[order]))
            place = np.empty(units.count, dtype=np.intp)
            place[order] = np.arange(units.count)
            order = np.argsort(place[units.code], kind="stable")
        baseline, small, large = rows.certified_baseline, rows.small_correct, rows.large_correct
        # An escalated row under the task prompt gets the very answer that the baseline gets: it loses nothing.
        escalated = baseline.astype(np.int8) - (large if rows.prompted else baseline)
        self._score = rows.score[order]
        self._kept_loss = (baseline.astype(np.int8) - small)[order]
        self._escalated_loss = escalated[order]

    def values(self, threshold: float) -> Callable[[int, int], NDArray[np.float64]]:
        """X = (1 + D) / 2 of the units `start .. stop` at `threshold`."""

        def of(start: int, stop: int) -> NDArray[np.float64]:
            starts = self._starts
            rows = slice(start, stop) if starts is None else slice(starts[start], starts[stop])
            loss = np.where(self._score[rows] > threshold, self._kept_loss[rows], self._escalated_loss[rows])
            if starts is None:
                return (1 + loss) / 2
            total = np.add.reduceat(loss, starts[start:stop] - starts[start], dtype=np.int64)
            return np.asarray((1 + total / np.diff(starts[start : stop + 1])) / 2)

        return of


def frozen_grid(validate: Frontier, searched: float, *, beyond: bool) -> NDArray[np.float64]:
    """Thresholds that keep 1/50, 2/50, ... of the validate rows, and the searched one; descending.

    The grid ends at the searched threshold, unless a bound on the call rate may need a threshold `beyond` it.
    """
    shares = np.arange(1, GRID_SIZE + 1) * validate.num_rows / GRID_SIZE  # in this order the last is num_rows exactly
    picked = np.searchsorted(validate.num_kept, shares)
    grid = np.unique(np.append(validate.thresholds[picked], searched))[::-1]
    grid = grid[grid < math.inf]
    return grid if beyond else grid[grid >= searched]
