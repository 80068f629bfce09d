"""Intervals for accuracies and their paired differences; valid for few rows, for no errors, and for grouped rows.

Score intervals do not collapse if every row is right. Rows of a group (sentences of one review) carry less information
than the same number of independent rows. An interval therefore uses the effective number of rows, n / deff: the design
effect deff is the variance over groups divided by the variance of independent rows. For few groups, t replaces z (Korn
and Graubard, Survey Methodology 24, 1998).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import ndtri, stdtrit


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its confidence interval."""

    estimate: float
    low: float
    high: float


def accuracy_interval(correct: ArrayLike, group: ArrayLike | None = None, level: float = 0.95) -> Interval | None:
    """Wilson's score interval (JASA 22, 1927) of the mean of `correct` [N]; None without rows."""
    correct_N = np.asarray(correct, dtype=np.float64)
    if len(correct_N) == 0:
        return None
    mean = float(correct_N.mean())
    return score_interval(mean, effective_rows(correct_N, group, level), level)


def score_interval(mean: float, num_rows: float, level: float = 0.95) -> Interval:
    """Wilson's score interval of a share `mean` over an effective number of rows; from 0 to 1 without rows."""
    if num_rows == 0:
        return Interval(mean, 0.0, 1.0)
    z2 = _z(level) ** 2
    centre = (mean + z2 / (2 * num_rows)) / (1 + z2 / num_rows)
    half = math.sqrt(z2 * (mean * (1 - mean) + z2 / (4 * num_rows)) / num_rows) / (1 + z2 / num_rows)
    return Interval(mean, max(0.0, centre - half), min(1.0, centre + half))


def paired_difference(
    first: ArrayLike, second: ArrayLike, group: ArrayLike | None = None, level: float = 0.95
) -> Interval | None:
    """Tango's score interval (Statistics in Medicine 17, 1998) of accuracy `first` minus accuracy `second`.

    Both are correctness [N] on the same rows. None without rows.
    """
    difference_N = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    if len(difference_N) == 0:
        return None
    mean = float(difference_N.mean())
    num_rows = effective_rows(difference_N, group, level)
    if num_rows == 0:
        return Interval(mean, -1.0, 1.0)
    wins, losses = float((difference_N > 0).mean()) * num_rows, float((difference_N < 0).mean()) * num_rows

    def excess(delta: float) -> float:
        variance = num_rows * (2 * _nuisance(delta, wins, losses, num_rows) + delta * (1 - delta))
        return (wins - losses - num_rows * delta) ** 2 - _z(level) ** 2 * variance

    return Interval(mean, _end(excess, mean, -1.0), _end(excess, mean, 1.0))


def resampled_error(values: ArrayLike, drawn_ratio: float) -> float:
    """Standard error of the mean of two or more `values` [J] of draws that share rows.

    Draws that share rows carry less information than independent ones (Nadeau and Bengio, Machine Learning 52, 2003).
    For draws of n of N rows without replacement and `drawn_ratio` n / (N - n) this is the delete-d jackknife (Shao and
    Wu, Annals of Statistics 17, 1989), plus the error of averaging J draws instead of all. It is exact for a linear
    statistic, and an upper bound for any other (Hoeffding, Annals of Mathematical Statistics 19, 1948, theorem 5.2).
    """
    values_J = np.asarray(values, dtype=np.float64)
    return math.sqrt((1 / len(values_J) + drawn_ratio) * float(values_J.var(ddof=1)))


def effective_rows(values: ArrayLike, group: ArrayLike | None = None, level: float = 0.95) -> float:
    """The number of independent rows with the same variance of the mean of `values` [N]; 0 for a single group."""
    values_N = np.asarray(values, dtype=np.float64)
    if (group := _known_groups(group)) is None:
        return float(len(values_N))
    num_groups = int(unit_codes(group).max()) + 1
    if num_groups < 2:
        return 0.0
    few_groups = (_z(level) / float(stdtrit(num_groups - 1, (1 + level) / 2))) ** 2
    return len(values_N) / design_effect(values_N, group) * few_groups


def design_effect(values: ArrayLike, group: ArrayLike) -> float:
    """Variance of the mean of `values` [N], drawn in groups, over its variance for independent rows; at least 1.

    Values that do not vary carry no information about it; the rows of a group then count as copies (Kish, 1965).
    """
    values_N, code_N = np.asarray(values, dtype=np.float64), unit_codes(group)
    size_G, num_rows = np.bincount(code_N), len(values_N)
    residual_N = values_N - values_N.mean()
    sum_of_squares = float(np.square(residual_N).sum())
    if sum_of_squares == 0 or len(size_G) < 2:
        return float(np.square(size_G).sum() / num_rows)
    between = float(np.square(np.bincount(code_N, residual_N)).sum()) * len(size_G) / (len(size_G) - 1)
    return max(1.0, between / (sum_of_squares * num_rows / (num_rows - 1)))


def _nuisance(delta: float, wins: float, losses: float, num_rows: float) -> float:
    """Maximum likelihood estimate of the probability of a loss when the difference is `delta`."""
    b = -wins - losses + (2 * num_rows - wins + losses) * delta
    c = -losses * delta * (1 - delta)
    return (math.sqrt(max(0.0, b * b - 8 * num_rows * c)) - b) / (4 * num_rows)


def _end(excess: Callable[[float], float], inside: float, outermost: float) -> float:
    """The point between the estimate and the end of the scale at which the score statistic leaves its region."""
    if inside == outermost or excess(outermost) <= 0:
        return outermost
    start = inside + 1e-9 * (outermost - inside)  # without wins or losses the statistic is 0/0 at the estimate itself
    return float(brentq(excess, start, outermost, xtol=1e-10))


def _z(level: float) -> float:
    return float(ndtri((1 + level) / 2))


class Units:
    """The units of N rows: a group is a unit, and so is a row without a group (None).

    If rows come in groups, `code` [N] is each row's unit and `size` [U] the number of rows of each unit. The loss of a
    unit is the mean over its rows.
    """

    def __init__(self, group: NDArray[np.object_] | None, num_rows: int) -> None:
        groups = _known_groups(group)
        self.grouped = groups is not None
        if groups is None:
            self.count = num_rows
            return
        self.code = unit_codes(groups)
        self.size = np.bincount(self.code)
        self.count = len(self.size)

    def weights(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """What a lost row adds to the sum of unit losses, for each of `rows`: one divided by its unit's size."""
        return 1 / self.size[self.code[rows]] if self.grouped else np.ones(len(rows))

    def of(self, rows: NDArray[np.intp]) -> Units:
        """The units of a subset of the rows."""
        return Units(self.code[rows].astype(object) if self.grouped else None, len(rows))

    def sample(self, num_rows: int, max_rows: int, seed: int) -> NDArray[np.intp]:
        """Positions of all `num_rows` rows, or of randomly drawn whole units with up to `max_rows` rows.

        At least two units are drawn, whatever their size, for leave-one-unit-out fits.
        """
        if num_rows <= max_rows:
            return np.arange(num_rows)
        order = np.random.default_rng(seed).permutation(self.count)
        if not self.grouped:
            return np.sort(order[:max_rows])
        is_chosen = np.cumsum(self.size[order]) <= max_rows
        is_chosen[:2] = True
        return np.flatnonzero(np.isin(self.code, order[is_chosen]))


def _known_groups(group: ArrayLike | None) -> ArrayLike | None:
    """The groups of rows; None if no row has a group."""
    return None if group is None or pd.isna(np.asarray(group, dtype=object)).all() else group


def unit_codes(group: ArrayLike) -> NDArray[np.intp]:
    """The number of every row's unit, [N]; a row whose group is None stands alone."""
    codes, names = pd.factorize(np.asarray(group, dtype=object))  # -1 for a missing group
    alone = np.flatnonzero(codes < 0)
    codes[alone] = len(names) + np.arange(len(alone))
    return np.asarray(codes)
