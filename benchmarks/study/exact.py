"""The certificate of a sceptic: an exact binomial test of each prefix of the ranking."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import binom

from kcm.cascade.outcome_rows import ScoredOutcomes


def exact_cut(rows: ScoredOutcomes, epsilon: float, delta: float) -> float:
    """The threshold of a sceptic: the longest prefix of the ranking whose every part passes an exact binomial test.

    Rows of equal score stand or fall together, the losses within them counted first.
    """
    is_loss = rows.large_correct & ~rows.small_correct
    order = np.lexsort((~is_loss, -rows.score))
    num_lost = np.cumsum(is_loss[order])
    passes = num_lost <= binom.ppf(delta, len(order), epsilon) - (
        binom.cdf(binom.ppf(delta, len(order), epsilon), len(order), epsilon) > delta
    )
    return -math.inf if passes.all() else float(rows.score[order][np.argmin(passes)])  # the whole tie is escalated
