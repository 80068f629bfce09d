"""How far inputs may lie from all known classes, and how often, before new classes must be among them.

Among n certify rows, the share of fresh inputs beyond the j-th largest distance follows Beta(j, n - j + 1) exactly, for
any distribution of rows, so an upper bound on the share holds with a known probability. Without new classes, distances
exceed that value no more often than the bound: this is the event for a `RateAlarm`. `kcm.cascade.novelty` computes the
distances.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from kcm.certification.pvalues import binomial_upper_bound
from kcm.config import Config
from kcm.errors import DataError

TYPICAL = 0.1  # share of the certify rows that lie beyond the threshold
FEWEST_ROWS = 100
LIMIT_DELTA = 0.01  # probability that the limit is too low
ALARM_DELTA = 0.05  # probability of ever seeing new classes among inputs like the certify rows, if the limit holds


class NoveltyReference(Config):
    """The distance from all known classes beyond which an input may be novel, and a bound on the rate of known ones.

    Once there are too many such inputs, inputs at a distance of `farthest` or more escalate; None if none have to.
    """

    threshold: float
    limit: float
    farthest: float | None

    @classmethod
    def fit(cls, novelty_N: NDArray[np.float64], farthest: float | None) -> NoveltyReference:
        """From the distances of certify rows; if all are nearer than `farthest`, a smaller distance replaces it.

        Rows of unknown classes can lie close together. Then many rows of the next unknown class are just below
        `farthest`: the geometric mean of it and the largest distance of a certify row escalates them. DataError for
        fewer than 100 rows.
        """
        if len(novelty_N) < FEWEST_ROWS:
            raise DataError(f"{len(novelty_N)} rows", where="novelty", hint=f"Give at least {FEWEST_ROWS} certify rows")
        ascending_N = np.sort(novelty_N)
        count, known = max(1, round(TYPICAL * len(ascending_N))), float(ascending_N[-1])
        if farthest is not None and known < farthest:
            farthest = math.sqrt(known * farthest)
        limit = binomial_upper_bound(count - 1, len(ascending_N), LIMIT_DELTA)
        return cls(threshold=float(ascending_N[-count]), limit=limit, farthest=farthest)
