"""P-values and upper bounds for the mean of losses in [0, 1], and the fewest units that could ever pass.

Every test here has H0: mean >= level, so a small p-value is evidence for a mean below the level.
"""

from __future__ import annotations

import bisect
import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import bdtr, betaincinv, rel_entr

_BOUND_TOLERANCE = 1e-9


class Drawn(Protocol):
    """Independently drawn units: their number, and whether a unit may hold several rows."""

    @property
    def count(self) -> int: ...

    @property
    def grouped(self) -> bool: ...


class LossTest:
    """The test for the losses of `units`: exact binomial for single rows, whose losses are 0 or 1.

    Groups use Hoeffding-Bentkus; the loss of a group is the mean over its rows.
    """

    def __init__(self, units: Drawn) -> None:
        self.num_units = units.count
        self._p_value = hoeffding_bentkus_p_value if units.grouped else binomial_p_value
        self._upper_bound = hoeffding_bentkus_upper_bound if units.grouped else binomial_upper_bound

    def p_value(self, total_loss: float, level: float) -> float:
        """p-value of H0: mean unit loss >= level, from the sum of unit losses."""
        return self._p_value(total_loss, self.num_units, level)

    def upper_bound(self, total_loss: float, delta: float) -> float:
        """Upper confidence bound, at `delta`, on the mean unit loss."""
        return self._upper_bound(total_loss, self.num_units, delta)

    def affordable(self, totals: NDArray[np.float64], level: float, delta: float) -> int:
        """With how many losses, in order, the test passes, given their sums `totals` (from 0 on); -1 if with none."""
        return bisect.bisect_right(totals, delta, key=lambda total: self.p_value(float(total), level)) - 1


def binomial_p_value(total_loss: float, num_units: int, level: float) -> float:
    """P(Bin(n, level) <= k), exact for `num_units` losses of 0 or 1 that sum to `total_loss`."""
    return _binomial_cdf(total_loss, num_units, level)


def binomial_upper_bound(total_loss: float, num_units: int, delta: float) -> float:
    """Clopper-Pearson: the largest level that `binomial_p_value` does not reject at `delta`."""
    if total_loss >= num_units:
        return 1.0
    return float(betaincinv(total_loss + 1, num_units - total_loss, 1 - delta))


def sign_p_value(num_losses: int, num_wins: int) -> float:
    """P(Bin(losses + wins, 1/2) <= losses): exact for H0 that a row is lost at least as often as it is won.

    Given how many rows are lost or won, each is lost with a probability of at least 1/2 under H0 (the sign test, for
    paired answers McNemar's). Rows that are neither lost nor won carry no information.
    """
    return _binomial_cdf(num_losses, num_losses + num_wins, 0.5)


def hoeffding_bentkus_p_value(total_loss: float, num_units: int, level: float) -> float:
    """Valid for losses anywhere in [0, 1] (Learn then Test, arXiv 2110.01052)."""
    mean = total_loss / num_units
    if mean >= level:
        return 1.0
    divergence = float(rel_entr(mean, level) + rel_entr(1 - mean, 1 - level))
    # A sum of halves and thirds may come out slightly above the integer that it equals.
    bentkus = math.e * _binomial_cdf(math.ceil(total_loss - 1e-9), num_units, level)
    return min(1.0, math.exp(-num_units * divergence), bentkus)


def hoeffding_bentkus_upper_bound(total_loss: float, num_units: int, delta: float) -> float:
    """The largest level that `hoeffding_bentkus_p_value` does not reject at `delta`."""
    mean = total_loss / num_units

    def excess(level: float) -> float:
        return hoeffding_bentkus_p_value(total_loss, num_units, level) - delta

    if mean >= 1 or excess(1 - _BOUND_TOLERANCE) > 0:
        return 1.0
    return float(brentq(excess, mean, 1 - _BOUND_TOLERANCE, xtol=_BOUND_TOLERANCE)) + _BOUND_TOLERANCE


def fewest_binomial(epsilon: float, delta: float) -> int:
    """Fewest units that `binomial_p_value` can reject with, none of them lost: (1 - epsilon)^n <= delta."""
    return math.ceil(math.log(delta) / math.log1p(-epsilon))


def fewest_signs(delta: float) -> int:
    """Fewest rows that `sign_p_value` can reject with, all of them won: 2^-n <= delta."""
    return math.ceil(-math.log2(delta))


def _binomial_cdf(count: float, num_units: int, level: float) -> float:
    return float(bdtr(math.floor(count), num_units, level))  # as scipy.stats.binom.cdf, in a tenth of the time
