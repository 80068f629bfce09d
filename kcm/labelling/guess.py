"""What the small model of one table says about all units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Units = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Guess:
    """What the small model would answer: codes of labels [U], and the probability that each is wrong [U]."""

    answer_U: Units
    wrong_U: NDArray[np.float64]


class SmallModel(Protocol):
    """The small model of one table."""

    def fit(self, units: Units, labels: Units) -> Guess:
        """Learn from the units bought so far and their labels, and guess every unit."""
