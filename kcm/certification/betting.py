"""Testing by betting: p-values for the mean of values in [0, 1] that adapt to their variance."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import logsumexp


class BettingTest:
    """The betting test of Waudby-Smith and Ramdas (arXiv 2010.09686), with bets as in RCPS (arXiv 2101.02703).

    The values X_1 .. X_n lie in [0, 1]. While their mean is at least `level`, the wealth
    K_m = prod_{i<=m} (1 - nu_i (X_i - level)) is a supermartingale, so p = 1 / max_m K_m. The bets look at earlier
    values only and adapt to their variance:

        nu_i = min(0.9 / (1 - level), sqrt(2 ln(1/delta) / (n s2_{i-1})))
        mu_i = (1/2 + sum_{j<=i} X_j) / (i + 1)     s2_i = (1/4 + sum_{j<=i} (X_j - mu_j)^2) / (i + 1)     s2_0 = 1/4

    `values(start, stop)` gives a slice of X, in an order drawn at random; no more is read than a decision needs.
    """

    def __init__(self, values: Callable[[int, int], NDArray[np.float64]], num_units: int, delta: float) -> None:
        self._values, self._num_units, self._log_target = values, num_units, -math.log(delta)
        self._sum = self._squares = 0.0
        self._blocks_read: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []  # X and uncapped bets

    def rejects(self, level: float) -> bool:
        """Whether p <= delta at `level`; stops reading at the first unit where the wealth suffices."""
        return self._log_wealth(level, target=self._log_target) >= self._log_target

    def p_value(self, level: float) -> float:
        """p = min(1, 1 / max_m K_m)."""
        return math.exp(-self._log_wealth(level))

    def upper_bound(self) -> float:
        """The largest level that is not rejected at `delta`; unique, because the wealth only grows with the level."""
        return largest_level(self._log_wealth, self._log_target, top=1 - 1e-6)

    def _log_wealth(self, level: float, target: float = math.inf) -> float:
        """max_m ln K_m over all units, at least 0; stops at the first unit that reaches `target`."""
        wealth, best = 0.0, 0.0
        for x, bet in self._blocks():
            path = np.cumsum(np.log1p(-np.minimum(0.9 / (1 - level), bet) * (x - level)))
            best = max(best, wealth + float(path.max()))
            wealth += float(path[-1])
            if best >= target:
                break
        return best

    def _blocks(self) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """X and sqrt(2 ln(1/delta) / (n s2)), in blocks that double from 1,024 units; read once."""
        yield from self._blocks_read
        start = sum(len(x) for x, _ in self._blocks_read)
        while start < self._num_units:
            stop = min(self._num_units, max(1024, 2 * start))
            x = self._values(start, stop)
            index = np.arange(start + 1, stop + 1)
            mean = (0.5 + self._sum + np.cumsum(x)) / (index + 1)
            squares = 0.25 + self._squares + np.concatenate([[0.0], np.cumsum((x - mean) ** 2)])
            bet = np.sqrt(2 * self._log_target / self._num_units * index / squares[:-1])
            self._sum, self._squares = self._sum + float(x.sum()), float(squares[-1]) - 0.25
            self._blocks_read.append((x, bet))
            yield x, bet
            start = stop


def p_values(values_SU: NDArray[np.float64], level: float, delta: float) -> NDArray[np.float64]:
    """`BettingTest.p_value` of S samples of U units each, [S], at once: one call costs little more than one test."""
    num_units = values_SU.shape[1]
    index = np.arange(1, num_units + 1)
    mean_SU = (0.5 + np.cumsum(values_SU, 1)) / (index + 1)
    squares_SU = 0.25 + np.cumsum((values_SU - mean_SU) ** 2, 1)
    before_SU = np.concatenate([np.full((len(values_SU), 1), 0.25), squares_SU[:, :-1]], 1)
    bet_SU = np.minimum(0.9 / (1 - level), np.sqrt(-2 * math.log(delta) / num_units * index / before_SU))
    wealth_SU = np.cumsum(np.log1p(-bet_SU * (values_SU - level)), 1)
    return np.asarray(np.exp(-np.maximum(wealth_SU.max(1), 0.0)))


def fewest_betting(level: float, delta: float) -> int:
    """Fewest units that `BettingTest` can reject `level` with, when every X is 1/2."""

    def rejects(num_units: int) -> bool:
        return BettingTest(lambda start, stop: np.full(stop - start, 0.5), num_units, delta).rejects(level)

    return fewest(rejects)


def fewest_without_loss(bets: NDArray[np.float64], weights: ArrayLike, level: float, delta: float) -> int:
    """Fewest units with X = 0 throughout at which a weighted mean of constant bets against `level` is worth 1/delta."""
    return fewest(lambda num_units: logsumexp(num_units * np.log1p(bets * level), b=weights) >= -math.log(delta))


def fewest(suffices: Callable[[int], bool]) -> int:
    """The smallest number of units that `suffices`; every larger number must suffice too."""
    high = 1
    while not suffices(high):
        high *= 2
    return bisect.bisect_left(range(high + 1), True, lo=high // 2, key=suffices)


def largest_level(log_wealth: Callable[[float], float], log_target: float, top: float = 1.0) -> float:
    """The largest level in [0, 1] at which the wealth, which only grows with the level, does not reach its target."""
    if log_wealth(top) <= log_target:
        return 1.0
    return float(brentq(lambda level: log_wealth(level) - log_target, 0.0, top, xtol=1e-7)) + 1e-7
