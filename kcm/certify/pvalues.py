"""P-values and upper bounds for the mean of losses in [0, 1], and how few units could ever pass.

Every test here is of H0: mean >= level, so a small p-value speaks for a mean below the level.
"""

from __future__ import annotations

import math

from scipy.optimize import brentq
from scipy.special import rel_entr
from scipy.stats import beta, binom

_BOUND_TOLERANCE = 1e-9


def binomial_p_value(total_loss: float, num_units: int, level: float) -> float:
    """P(Bin(n, level) <= k), exact for `num_units` losses of 0 or 1 that sum to `total_loss`."""
    return float(binom.cdf(total_loss, num_units, level))


def binomial_upper_bound(total_loss: float, num_units: int, delta: float) -> float:
    """Clopper-Pearson: the largest level that `binomial_p_value` does not reject at `delta`."""
    if total_loss >= num_units:
        return 1.0
    return float(beta.ppf(1 - delta, total_loss + 1, num_units - total_loss))


def hoeffding_bentkus_p_value(total_loss: float, num_units: int, level: float) -> float:
    """Valid for losses anywhere in [0, 1] (Learn then Test, arXiv 2110.01052)."""
    mean = total_loss / num_units
    if mean >= level:
        return 1.0
    divergence = float(rel_entr(mean, level) + rel_entr(1 - mean, 1 - level))
    # A sum of halves and thirds may land a hair above the integer that it is.
    bentkus = math.e * float(binom.cdf(math.ceil(total_loss - 1e-9), num_units, level))
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
