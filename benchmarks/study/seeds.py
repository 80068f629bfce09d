"""Intervals of figures that have one value for every seed or fold."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from kcm.metrics.intervals import Interval, resampled_error


def resampled_mean(values: ArrayLike, held_out_share: float, level: float = 0.95) -> Interval | None:
    """Corrected resampled t interval of a mean over folds (Nadeau and Bengio, Machine Learning 52, 2003).

    `values` [J] has one value per fold of one or more rounds of cross-validation; `held_out_share` is the number of
    held-out rows over the number of fitted rows, 1 / (K - 1) for K folds. Folds share most of their fitted rows, so J
    values carry less information than J independent ones: the variance of their mean is (1/J + held_out_share) times
    their own variance. None for fewer than two folds.
    """
    values_J = np.asarray(values, dtype=np.float64)
    if len(values_J) < 2:
        return None
    mean, num_folds = float(values_J.mean()), len(values_J)
    half = float(stdtrit(num_folds - 1, (1 + level) / 2)) * resampled_error(values_J, held_out_share)
    return Interval(mean, mean - half, mean + half)


def mean_and_ends(values: ArrayLike, share: float) -> list[float]:
    """`resampled_mean` of two or more values as it is written down: the mean, then both ends."""
    interval = resampled_mean(values, share)
    if interval is None:
        raise ValueError("an interval needs two values or more")
    return [interval.estimate, interval.low, interval.high]


def interval_of(interval: Interval | None) -> dict[str, Any] | None:
    """A paired interval as it is written down; None for fewer than two seeds."""
    return None if interval is None else {"estimate": interval.estimate, "interval": [interval.low, interval.high]}


def gap(first: ArrayLike, second: ArrayLike, share: float = 0.0) -> dict[str, float]:
    """The mean of `first` minus `second` and its paired 95% interval, for two or more seeds, splits or rows.

    `share` is the number of test rows over train rows if seeds share their rows: the interval is then wider.
    """
    return dict(zip(("estimate", "low", "high"), mean_and_ends(np.subtract(first, second), share), strict=True))
