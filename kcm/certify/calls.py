"""The certificate of a call rate: its path runs upwards from `keep all`, which makes no call."""

from __future__ import annotations

import math

import numpy as np

from kcm.cascade.frontier import midway
from kcm.cascade.scored import ScoredOutcomes
from kcm.certify.pvalues import LossTest
from kcm.metrics.intervals import Units


def highest_call_threshold(rows: ScoredOutcomes, max_call_rate: float, delta: float) -> float:
    """The highest threshold whose call rate is certified, at `delta`, to stay below `max_call_rate`; -inf: keep all.

    The call rate only grows with the threshold, so the path may run over the rows' own scores.
    """
    units = Units(rows.group, len(rows))
    order = np.argsort(rows.score)
    score = rows.score[order]
    totals = np.append(0.0, np.cumsum(units.weights(order)))
    affordable = LossTest(units).affordable(totals, max_call_rate, delta)
    if affordable < 0:
        return -math.inf
    below = score[: np.searchsorted(score, score[affordable])]
    return float(midway(score[affordable], below[-1])) if len(below) else -math.inf


def call_rate_bound(rows: ScoredOutcomes, threshold: float, delta: float) -> float:
    """Upper confidence bound, at `delta`, on the call rate of `threshold`."""
    if threshold == -math.inf:
        return 0.0
    units = Units(rows.group, len(rows))
    called = float(units.weights(np.flatnonzero(rows.score <= threshold)).sum())
    return LossTest(units).upper_bound(called, delta)
