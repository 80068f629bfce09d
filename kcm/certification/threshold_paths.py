"""The tested paths of thresholds: regret and net, from `escalate all` towards keeping more.

A path ends at the first threshold that its test does not pass; all before it are certified (fixed-sequence testing,
Learn then Test, arXiv 2110.01052).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from kcm.cascade.frontier import Frontier
from kcm.cascade.outcome_rows import ScoredOutcomes
from kcm.cascade.thresholds import lowest_threshold
from kcm.certification.betting import BettingTest, fewest_betting, p_values
from kcm.certification.pvalues import LossTest, fewest_binomial, fewest_signs, sign_p_value
from kcm.metrics.intervals import Units

TableMethod = Literal["regret", "net"]  # on certify rows with labels
GRID_SIZE = 100


class ThresholdPath(Protocol):
    """A tested path over the certify rows, at a given epsilon and delta.

    `num_units` were drawn independently; with fewer than `fewest_units` no outcomes could pass.
    """

    num_units: int
    fewest_units: int

    def certified(self) -> float:
        """The lowest threshold that is certified together with all thresholds above it; +inf if there is none."""

    def p_value(self, threshold: float) -> float:
        """p-value of H0: the cascade at `threshold` loses at least epsilon."""

    def upper_bound(self, threshold: float) -> float:
        """Upper confidence bound, at delta, on the accuracy that the cascade at `threshold` loses."""

    def method(self, threshold: float) -> TableMethod:
        """How the test at `threshold` counts losses; by default wins are not credited."""
        return "regret"


class RegretPath(ThresholdPath):
    """Wins are not credited: a row is lost if it is kept, the small model is wrong and the large one right.

    The loss only grows as the threshold falls, so the path may run over the certify rows' own scores (RCPS, arXiv
    2101.02703): to keep too much, the sample would have to look better than the test allows at the one threshold
    where the true loss reaches epsilon.
    """

    def __init__(self, rows: ScoredOutcomes, epsilon: float, delta: float) -> None:
        units = Units(rows.group, len(rows))
        lost_rows = np.flatnonzero(rows.certified_baseline & ~rows.small_correct)
        lost_rows = lost_rows[np.argsort(-rows.score[lost_rows])]
        self.num_units, self.fewest_units = units.count, fewest_binomial(epsilon, delta)
        self._scores, self._epsilon, self._delta = rows.score, epsilon, delta
        self._lost_scores = rows.score[lost_rows]  # descending
        self._totals = np.append(
            0.0, np.cumsum(units.weights(lost_rows))
        )  # unit losses summed over the first k lost rows
        self._test = LossTest(units)

    def certified(self) -> float:
        """Just above the score of the first lost row that the test cannot afford."""
        affordable = self._test.affordable(self._totals, self._epsilon, self._delta)
        if affordable < 0:
            return math.inf
        return lowest_threshold(self._scores, self._lost_scores, affordable)

    def p_value(self, threshold: float) -> float:
        return self._test.p_value(self._total(threshold), self._epsilon)

    def upper_bound(self, threshold: float) -> float:
        """Clopper-Pearson bound for single rows, Hoeffding-Bentkus for groups."""
        return self._test.upper_bound(self._total(threshold), self._delta)

    def _total(self, threshold: float) -> float:
        return float(self._totals[np.searchsorted(-self._lost_scores, -threshold)])


class NetPath(ThresholdPath):
    """Wins are credited: a row loses D = L_none - correct(cascade), in {-1, 0, 1}; tested by betting.

    D is not monotone in the threshold, so the path runs over a grid frozen on other rows. X = (1 + D) / 2 is tested
    against (1 + epsilon) / 2, in a seeded random order of the units.
    """

    def __init__(self, rows: ScoredOutcomes, grid: NDArray[np.float64], epsilon: float, delta: float) -> None:
        self._level, self._delta, self._grid = (1 + epsilon) / 2, delta, grid
        self._losses = _ShuffledLosses(rows)
        self.num_units = self._losses.num_units
        self.fewest_units = fewest_net(epsilon, delta)

    def certified(self) -> float:
        """The last threshold of the grid before the first failure."""
        certified = math.inf
        for threshold in self._grid.tolist():
            if not self.passes(threshold):
                break
            certified = threshold
        return certified

    def p_value(self, threshold: float) -> float:
        return self._test(threshold).p_value(self._level)

    def upper_bound(self, threshold: float) -> float:
        """Bound on the mean of X, as a bound on the mean of D."""
        return 2 * self._test(threshold).upper_bound() - 1

    def passes(self, threshold: float) -> bool:
        """Whether the test at one threshold passes."""
        return self._test(threshold).rejects(self._level)

    def method(self, threshold: float) -> TableMethod:
        return "net"

    def _test(self, threshold: float) -> BettingTest:
        return BettingTest(self._losses.values(threshold), self.num_units, self._delta)


class NotWorsePath(NetPath):
    """`net` at epsilon 0 on single rows: D is -1, 0 or 1, and its sign is tested exactly.

    Bets need twice as many rows to show the same gain. The bound still comes from the bets: the sign test has none.
    """

    def __init__(self, rows: ScoredOutcomes, grid: NDArray[np.float64], delta: float) -> None:
        super().__init__(rows, grid, 0.0, delta)
        self.fewest_units = fewest_signs(delta)

    def p_value(self, threshold: float) -> float:
        return sign_p_value(*self._losses.signs(threshold))

    def passes(self, threshold: float) -> bool:
        return self.p_value(threshold) <= self._delta


class MethodChoice:
    """Whether `regret` or `net` tests a threshold: the test that more of `samples` pass there.

    `samples` are drawn from rows that certify nothing. On a tie, the test with the lower highest p-value wins.
    """

    def __init__(self, samples: Sequence[ScoredOutcomes], epsilon: float, delta: float) -> None:
        regret = [RegretPath(sample, epsilon, delta) for sample in samples]
        self._delta = delta
        self._p_values: dict[TableMethod, Callable[[float], Sequence[float]]] = {
            "regret": lambda threshold: [path.p_value(threshold) for path in regret],
            "net": partial(_net_p_values, [_ShuffledLosses(sample) for sample in samples], (1 + epsilon) / 2, delta),
        }
        self._methods: dict[float, TableMethod] = {}  # by threshold, filled on demand

    def method(self, threshold: float) -> TableMethod:
        """The test of a threshold."""

        def standing(method: TableMethod) -> tuple[int, float]:
            by_sample = self._p_values[method](threshold)
            return sum(p <= self._delta for p in by_sample), -max(by_sample)

        if threshold not in self._methods:
            self._methods[threshold] = max(self._p_values, key=standing)
        return self._methods[threshold]


class EitherPath(NetPath):
    """Every threshold of the grid by `regret` or by `net`, as `choice` says; by `regret` if `net` has too few units.

    A cascade that loses epsilon with its wins credited loses at least as much without them, so either test is valid for
    the promise of `net`. On few rows, `regret` passes strict thresholds, which lose hardly any row, and `net` passes
    thresholds at which the small model wins often. With only one of them the path would often stop early.

    Thresholds above a grid threshold of `regret`, up to the next one, are tested by `regret` as well. Its loss only
    grows as the threshold falls, so these tests cost nothing, as in `RegretPath`.
    """

    def __init__(
        self,
        rows: ScoredOutcomes,
        grid: NDArray[np.float64],
        epsilon: float,
        delta: float,
        choice: MethodChoice,
    ) -> None:
        super().__init__(rows, grid, epsilon, delta)
        self._choice = choice
        self._regret, self._credits = RegretPath(rows, epsilon, delta), self.num_units >= self.fewest_units
        self.fewest_units = min(self.fewest_units, self._regret.fewest_units)
        self._lowest: float | None = None  # certified by `regret` between two thresholds of the grid

    def certified(self) -> float:
        """As in the grid, or just above the lost row at which `regret` fails between two thresholds of the grid."""
        certified = super().certified()
        below = self._grid[self._grid < certified]
        if len(below) and self.method(float(below[0])) == "regret":
            lowest = self._regret.certified()
            if lowest < certified:
                self._lowest = lowest
                return lowest
        return certified

    def p_value(self, threshold: float) -> float:
        return self._regret.p_value(threshold) if self.method(threshold) == "regret" else super().p_value(threshold)

    def upper_bound(self, threshold: float) -> float:
        by_regret = self.method(threshold) == "regret"
        return self._regret.upper_bound(threshold) if by_regret else super().upper_bound(threshold)

    def passes(self, threshold: float) -> bool:
        return self.p_value(threshold) <= self._delta

    def method(self, threshold: float) -> TableMethod:
        if threshold == self._lowest or not self._credits:
            return "regret"
        return self._choice.method(threshold)


class _ShuffledLosses:
    """Losses of the units in a fixed random order; the rows of a unit are adjacent."""

    def __init__(self, rows: ScoredOutcomes) -> None:
        units = Units(rows.group, len(rows))
        order = np.random.default_rng(0).permutation(units.count)
        self._starts: NDArray[np.intp] | None = None
        self.num_units = units.count
        if units.grouped:
            self._starts = np.append(0, np.cumsum(units.size[order]))
            place = np.empty(units.count, dtype=np.intp)
            place[order] = np.arange(units.count)
            order = np.argsort(place[units.code], kind="stable")
        self._score = rows.score[order]
        self._kept_loss = (rows.certified_baseline.astype(np.int8) - rows.small_correct)[order]

    def signs(self, threshold: float) -> tuple[int, int]:
        """The number of lost rows and the number of won rows at `threshold`."""
        loss = np.where(self._score > threshold, self._kept_loss, 0)
        return int((loss > 0).sum()), int((loss < 0).sum())

    def values(self, threshold: float) -> Callable[[int, int], NDArray[np.float64]]:
        """X = (1 + D) / 2 of the units `start .. stop` at `threshold`."""

        def of(start: int, stop: int) -> NDArray[np.float64]:
            starts = self._starts
            rows = slice(start, stop) if starts is None else slice(starts[start], starts[stop])
            loss = np.where(self._score[rows] > threshold, self._kept_loss[rows], 0)  # an escalated row loses nothing
            if starts is None:
                return (1 + loss) / 2
            total = np.add.reduceat(loss, starts[start:stop] - starts[start], dtype=np.int64)
            return np.asarray((1 + total / np.diff(starts[start : stop + 1])) / 2)

        return of


def _net_p_values(samples: Sequence[_ShuffledLosses], level: float, delta: float, threshold: float) -> Sequence[float]:
    """The p-value of `NetPath` at a threshold on every sample; samples of one size are tested together."""
    by_size: dict[int, list[NDArray[np.float64]]] = {}
    for sample in samples:
        by_size.setdefault(sample.num_units, []).append(sample.values(threshold)(0, sample.num_units))
    return np.concatenate([p_values(np.stack(values), level, delta) for values in by_size.values()]).tolist()


def fewest_net(epsilon: float, delta: float) -> int:
    """Fewest units that could certify `epsilon` with wins credited and no unit lost; at epsilon 0, with all won."""
    return fewest_betting((1 + epsilon) / 2, delta) if epsilon else fewest_signs(delta)


def not_worse_path(rows: ScoredOutcomes, grid: NDArray[np.float64], delta: float) -> NetPath:
    """The path at epsilon 0: by signs for single rows, by bets on the unit means for rows drawn in groups."""
    return NetPath(rows, grid, 0.0, delta) if Units(rows.group, len(rows)).grouped else NotWorsePath(rows, grid, delta)


def from_surest(grid: NDArray[np.float64], choosing: NetPath, searched: float) -> NDArray[np.float64]:
    """The grid from a threshold at or above the searched one: the one with the surest gain on the rows that choose.

    Strict thresholds keep hardly any row and gain hardly anything. At epsilon 0 a path from `escalate all` would
    therefore stop at its first step. The order of a path is free as long as it is fixed before the certify rows are
    read.
    """
    above = grid[grid >= searched]
    if not len(above):
        return grid
    return grid[grid <= min(above.tolist(), key=choosing.p_value)]


def frozen_grid(validate: Frontier, searched: float, *, beyond: bool = False) -> NDArray[np.float64]:
    """Thresholds that keep 1%, 2%, ... of the validate rows, plus the searched threshold; descending.

    The grid ends at the searched threshold, unless a drawing continues `beyond` it.
    """
    shares = np.arange(1, GRID_SIZE + 1) * validate.num_rows / GRID_SIZE  # in this order the last is num_rows exactly
    positions = np.searchsorted(validate.num_kept, shares)
    grid = np.unique(np.append(validate.thresholds[positions], searched))[::-1]
    grid = grid[grid < math.inf]
    return grid if beyond else grid[grid >= searched]
