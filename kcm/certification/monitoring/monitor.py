"""Monitoring a deployed promise on audited traffic, at any time and without an end date.

A random share of the kept requests is also sent to the large model; the probability of each audit is logged. With
A = 1 if request i was audited (probability pi_i) and x_i its loss,

    Y_i = A_i x_i / pi_i        has the mean loss over all requests, where escalated requests lose nothing.

Without labels, x = 1 if small and large disagree. This bounds the loss from above, because the small model can only
lose when the two differ. With labels, x = 1 if the small model is wrong and the large one right; if wins are credited,
x is the difference of the two.

For a mean m, bets that Y lies above, and bets that it lies below, multiply to a wealth

    K(m) = mean over b of  prod_i (1 +- b (s_i Y_i - s_i m) / d_i)        d_i = s_i m - lowest  or  1 - s_i m

with a fixed grid of bets b in (0, 1) and s_i the least audit probability that was announced when request i came. While
the mean loss is m, each wealth is a supermartingale. So the means whose wealth has not reached 1/delta are a confidence
sequence, which may be read after every request (betting, arXiv 2010.09686; weights, arXiv 2210.10768). The bets do not
depend on the outcomes. Hence K depends on how often each value of Y occurred and not on their order. K also rises, or
falls, with every Y, so unknown outcomes can be bounded: the lower end uses the least possible loss and the upper end
the greatest. The sequence then holds however late an outcome becomes known, and whatever decides which ones do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, logsumexp

from kcm.errors import DataError

_BETS_B = expit(np.arange(-10.0, 6.0))  # from about 1/20,000 to 1 - 1/150, as shares of the largest bet
_EDGE = 1e-7  # distance of the tried means from the ends, and the widening of the interval


@dataclass(frozen=True)
class Observations:
    """`number` requests with equal values.

    `share` is the least audit probability announced when the requests came, independent of the requests. `probability`
    is the probability of their audit. `low` and `high` are the least and the greatest loss that each request can have,
    as far as is known. A request that was not audited has loss 0 and counts through `number`.
    """

    number: int
    share: float
    probability: float = 1.0
    low: float = 0.0
    high: float = 0.0


def loss_interval(groups: Sequence[Observations], delta: float, *, credits_wins: bool = False) -> tuple[float, float]:
    """Ends of the mean loss over all requests, each of which holds at all times with probability 1 - delta.

    Losses lie in [0, 1], or in [-1, 1] if `credits_wins`. Raises DataError for impossible observations.
    """
    lowest = -1.0 if credits_wins else 0.0
    if not 0 < delta < 1:
        raise DataError(f"delta = {delta}, expected a number between 0 and 1", where="monitor")
    for group in groups:
        _require(group, lowest)
    number_G = np.array([group.number for group in groups], dtype=np.float64)
    share_G = np.array([group.share for group in groups])
    weight_G = share_G / np.array([group.probability for group in groups])

    low_G = weight_G * np.array([group.low for group in groups])
    high_G = weight_G * np.array([group.high for group in groups])
    target = math.log(1 / delta)

    def above(mean: float) -> float:
        return _log_wealth((low_G - share_G * mean) / (share_G * mean - lowest), number_G) - target

    def below(mean: float) -> float:
        return _log_wealth((share_G * mean - high_G) / (1 - share_G * mean), number_G) - target

    find = partial(brentq, xtol=_EDGE / 2)
    mean_low, mean_high = lowest + _EDGE, 1 - _EDGE
    low = lowest if above(mean_low) < 0 else 1.0 if above(mean_high) >= 0 else find(above, mean_low, mean_high) - _EDGE
    high = 1.0 if below(mean_high) < 0 else lowest if below(mean_low) >= 0 else find(below, mean_low, mean_high) + _EDGE
    return max(lowest, low), min(1.0, high)


def _log_wealth(gain_G: NDArray[np.float64], number_G: NDArray[np.float64]) -> float:
    """ln K, from the gain of the largest bet on one request of each group; a bet loses at most 1."""
    return float(logsumexp(np.log1p(_BETS_B[:, None] * gain_G) @ number_G, b=1 / len(_BETS_B)))


def _require(observations: Observations, lowest: float) -> None:
    if observations.number < 0 or not 0 < observations.share <= observations.probability <= 1:
        raise DataError(
            f"number = {observations.number}, share = {observations.share}, probability = {observations.probability}:"
            " expected number >= 0 and 0 < share <= probability <= 1",
            where="monitor",
        )
    if not lowest <= observations.low <= observations.high <= 1:
        raise DataError(f"losses [{observations.low}, {observations.high}] must lie in [{lowest}, 1]", where="monitor")
