"""The test for one finite table: how many unbought answers can differ from the oracle's.

A ranking of K units is fixed, then n of them are drawn uniformly without replacement and bought. With

    x* = the largest x with A + x + 1 <= K and P(Hypergeometric(K, A + x + 1, n) <= x) <= delta

every prefix of the ranking with at most x* drawn errors has at most A errors among its units that were not drawn. This
holds for all prefixes together with probability at least 1 - delta.

Proof. Let J be the first A + x* + 1 errors of the ranking, filled up with any units if there are fewer; J is fixed
before the draw. Suppose a prefix has at most x* drawn and more than A undrawn errors. If J lies inside the prefix's
errors, at most x* units of J were drawn. Otherwise J contains all errors of the prefix: at least A + 1 units of J are
undrawn, and again at most x* were drawn. That has the probability above.

BARGAIN (arXiv 2509.02896) uses the same hypergeometric test without replacement; here its bound covers all prefixes.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln
from scipy.stats import hypergeom

_NEGLIGIBLE, _HUGE = 1e-12, 1e200  # parts of a sum
_ROUNDING = 1 - 1e-6  # of delta: sums of logarithms of factorials are exact to about nine digits


def allowed_errors(target: float, num_rows: int) -> int:
    """floor((1 - target) N), in exact decimals: floats make 99 of (1 - 0.9) * 1000."""
    return int((1 - Decimal(str(target))) * num_rows)


def afforded_errors(num_units: int, num_drawn: int, allowed: int, delta: float) -> int:
    """x*, the largest number of drawn errors with which a prefix still holds; -1 if even zero errors are too many.

    `num_drawn` of `num_units` units are drawn, and at most `allowed` undrawn errors are promised.
    """
    max_errors = -1
    while (bad := allowed + max_errors + 2) <= num_units:
        if hypergeom.cdf(max_errors + 1, num_units, bad, num_drawn) > delta:
            break
        max_errors += 1
    return max_errors


def fewest_drawn(num_units: ArrayLike, errors: ArrayLike, allowed: ArrayLike, delta: float) -> NDArray[np.int64]:
    """The fewest units to draw so that `errors` drawn errors are afforded, elementwise for the broadcast arguments.

    The result is `num_units + 1` if no draw affords them.
    """
    units, x, a = np.broadcast_arrays(*(np.asarray(counts, dtype=np.int64) for counts in (num_units, errors, allowed)))
    low, high = np.zeros(units.shape, dtype=np.int64), units + 1
    bad = a + x + 1
    possible = bad <= units
    while np.any(low < high):
        middle = (low + high) // 2
        passes = possible & (middle <= units)
        log_p = _log_cdf(np.where(passes, units, 1), np.where(passes, bad, 1), np.where(passes, middle, 0), x)
        passes &= log_p <= np.log(delta * _ROUNDING)
        open_ = low < high
        high = np.where(open_ & passes, middle, high)
        low = np.where(open_ & ~passes, np.minimum(middle + 1, units + 1), low)
        high = np.maximum(high, low)
    return np.asarray(low)


def missed_errors(num_units: int, num_drawn: int, drawn_errors: int, delta: float) -> int:
    """Upper bound, at `delta`, on the undrawn errors of one prefix that was fixed before the draw.

    The largest W with P(Hypergeometric(num_units, W, num_drawn) <= drawn_errors) > delta, less the drawn ones.
    """
    low, high = drawn_errors, num_units - num_drawn + drawn_errors
    while low < high:
        middle = (low + high + 1) // 2
        if hypergeom.cdf(drawn_errors, num_units, middle, num_drawn) > delta:
            low = middle
        else:
            high = middle - 1
    return low - drawn_errors


def longest_prefix(places: Sequence[int] | NDArray[np.int64], wrong: ArrayLike, num_units: int, most: int) -> int:
    """Length of the longest prefix with at most `most` drawn errors.

    `places` are the ranks of the drawn units, ascending; `wrong` marks the errors among them. Returns 0 if `most` < 0.
    """
    if most < 0:
        return 0
    errors = np.asarray(places, dtype=np.int64)[np.asarray(wrong, dtype=bool)]
    return num_units if len(errors) <= most else int(errors[most])


def _log_cdf(
    units: NDArray[np.int64], bad: NDArray[np.int64], drawn: NDArray[np.int64], most: NDArray[np.int64]
) -> NDArray[np.float64]:
    """log P(Hypergeometric(units, bad, drawn) <= most), elementwise, by a recurrence from the largest term down.

    P(X = i - 1) / P(X = i) = i (units - bad - drawn + i) / ((bad - i + 1) (drawn - i + 1)).
    """
    i = np.minimum(most, np.minimum(bad, drawn))
    good = units - bad
    possible = drawn - i <= good
    last = np.where(possible, i, np.minimum(bad, drawn))  # any possible count
    log_last = _log_choose(bad, last) + _log_choose(good, drawn - last) - _log_choose(units, drawn)
    term, total = np.ones(units.shape), np.ones(units.shape)
    for count in range(int(i.max(initial=0))):
        j = np.maximum(i - count, 0).astype(np.float64)  # at 0, and at the least possible count, the ratio is 0
        term = np.minimum(term * j * np.maximum(good - drawn + j, 0) / ((bad - j + 1) * (drawn - j + 1)), _HUGE)
        total += term
        if (term <= total * _NEGLIGIBLE).all():
            break
    log_p = np.where(total < _HUGE, log_last + np.log(total), 0.0)  # so far above its mode that X <= most is certain
    return np.where(possible, log_p, -np.inf)


def _log_choose(n: NDArray[np.int64], k: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0))
