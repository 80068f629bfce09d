"""Watching a deployed promise on audited traffic, at any time and for as long as one likes.

A random share of the kept requests is also sent to the large model; the probability of each audit is logged. With
A = 1 where request i was audited (probability pi_i) and x_i what it lost,

    Y_i = A_i x_i / pi_i        has the mean loss over all requests, escalated ones losing nothing.

Without labels, x = 1 where small and large disagree bounds the loss from above: the small model can only have lost
where the two differ. With labels, x = 1 where the small model is wrong and the large one right, or, where wins are
credited, the difference of the two.

For a mean m, bets on Y lying above, and below, multiply to a wealth

    K(m) = mean over b of  prod_i (1 +- b (s_i Y_i - s_i m) / d_i)        d_i = s_i m - lowest  or  1 - s_i m

with a fixed grid of bets b in (0, 1) and s_i the least audit probability that was announced when request i came. While
the mean loss is m, each is a supermartingale, so the means whose wealth has not reached 1/delta are a confidence
sequence: it may be looked at after every request (betting, arXiv 2010.09686; weights, arXiv 2210.10768). The bets do
not look at the outcomes. Hence K depends on how often each value of Y was seen and not on the order; and K grows, or
falls, with every Y, so that what is not known may be bounded: with the least possible loss in the lower end and the
greatest in the upper end the sequence holds, however late an outcome is known and whatever decides which ones are.
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

_BETS_B = expit(np.arange(-10.0, 6.0))  # from about 1/20,000 to 1 - 1/150, as shares of the largest one
_EDGE = 1e-7  # of the means that are tried, and what the ends are widened by


@dataclass(frozen=True)
class Observations:
    """`number` requests with equal values.

    `share` is the least audit probability announced when they came, independent of the request; `probability` that of
    their audit; `low` and `high` the least and the greatest loss that each can have, as far as is known. A request that
    was not audited has loss 0 and counts by its number.
    """

    number: int
    share: float
    probability: float = 1.0
    low: float = 0.0
    high: float = 0.0


def loss_interval(groups: Sequence[Observations], delta: float, *, credits_wins: bool = False) -> tuple[float, float]:
    """Ends of the mean loss over all requests, each of which holds at all times with probability 1 - delta.

    Losses lie in [0, 1], or in [-1, 1] where `credits_wins`. Raises DataError for what cannot have been seen.
    """
    lowest = -1.0 if credits_wins else 0.0
    if not 0 < delta < 1:
        raise DataError(f"delta = {delta}, expected a number between 0 and 1", where="monitor")
    for group in groups:
        _require(group, lowest)
    number_G = np.array([group.number for group in groups], dtype=np.float64)
    share_G = np.array([each.share for each in groups])
    weight_G = share_G / np.array([each.probability for each in groups])

    low_G = weight_G * np.array([each.low for each in groups])
    high_G = weight_G * np.array([each.high for each in groups])
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
    """ln K from what the largest bet gains on a request of each group; its losses are 1 at most."""
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
