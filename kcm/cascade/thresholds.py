"""Thresholds between scores. A threshold t keeps the rows with a score > t."""

from __future__ import annotations

import math
import sys

import numpy as np
from numpy.typing import NDArray

FAR = -sys.float_info.max  # the score of a row that always escalates: below the threshold that keeps all others
KEEPS_ALL = FAR / 4  # no other score lies below it; midway between any of them and FAR is below it as well


def midway(upper: NDArray[np.float64], lower: NDArray[np.float64]) -> NDArray[np.float64]:
    """Thresholds between adjacent scores `upper` > `lower`: at or above `lower` and below `upper`, for any floats."""
    middle = np.maximum(upper / 2 + lower / 2, lower)  # halves first: the sum may overflow
    return np.where(middle < upper, middle, lower)


def lowest_threshold(scores: NDArray[np.float64], lost_scores: NDArray[np.float64], affordable: int) -> float:
    """The lowest threshold that keeps only `affordable` lost rows; -inf if it may keep them all.

    `lost_scores` are the gate scores of the lost rows, descending. The threshold lies just above the first lost row
    that must not be kept; it is +inf if no score lies there.
    """
    if affordable == len(lost_scores):
        return -math.inf
    above = scores[scores > lost_scores[affordable]]
    return float(midway(above.min(), lost_scores[affordable])) if len(above) else math.inf
