"""Thresholds between scores. A threshold t keeps the rows with a score > t."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def midway(upper: NDArray[np.float64], lower: NDArray[np.float64]) -> NDArray[np.float64]:
    """Thresholds between adjacent scores `upper` > `lower`: at or above `lower` and below `upper`, for any floats."""
    middle = np.maximum(upper / 2 + lower / 2, lower)  # halves first: the sum may overflow
    return np.where(middle < upper, middle, lower)


def lowest_threshold(scores: NDArray[np.float64], lost: NDArray[np.float64], affordable: int) -> float:
    """The lowest threshold that keeps `affordable` of the rows with `lost` scores, descending; -inf where all may be.

    It lies just above the first lost row that is refused; +inf where no score does.
    """
    if affordable == len(lost):
        return -math.inf
    above = scores[scores > lost[affordable]]
    return float(midway(above.min(), lost[affordable])) if len(above) else math.inf
