"""Certifying a challenger on the traffic of the deployed cascade, without labels.

The large model's answer to every item was requested with a known probability pi: 1 if the item was escalated, the audit
share if it was kept. A challenger's gate score g' and small answer S' are computed afterwards. If it keeps an item and
disagrees with the large model, it may have lost; if it agrees, it cannot have. So with A = 1 if the large answer was
requested,

    d(t) = 1[g' > t] 1[S' != L]        X(t) = pi_min A d(t) / pi  in [0, 1]        a = pi_min epsilon

and the mean of d(t) bounds the challenger's loss against the large model alone, whatever the labels are. A requested
answer that is lost, late, failed or degraded counts as a disagreement. The test of H0: mean d(t) >= epsilon bets a
constant share nu on every unit of the window,

    K(t) = prod_u (1 - nu (X_u(t) - a))        p(t) = 1 / K(t)  at the end of the window.

Given the items, only the draws of the audits are random, and they are independent: under H0 the expectation of K is
prod (1 - nu (pi_min d_u - a)) <= (1 - nu pi_min (mean d - epsilon))^n <= 1 by the inequality of the arithmetic and
geometric means. So the test holds for the window's own mean, under any drift, dependence or change within it; for a
statement about later traffic, units are assumed exchangeable. Bets that adapt over time would lose this property, and
with it the monotonicity in t that allows any grid of thresholds. A mean of K over bets with fixed weights is equally
valid and monotone. References: arXiv 2010.09686 (betting), 2210.10768 (weights).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import logsumexp

from kcm.cascade.thresholds import lowest_threshold
from kcm.certification.betting import fewest_without_loss, largest_level
from kcm.certification.threshold_paths import ThresholdPath
from kcm.errors import ConfigError, DataError

LARGEST_BET = 0.99  # 1 - nu (X - a) stays above zero for every X in [0, 1] and every level a
_SAFETY_BETS = (0.5, 0.25, 0.1, 0.03)  # additional bets, in case the window differs from its plan
_SAFETY_WEIGHT = 0.2  # share of the wealth for all of them; they cost ln(1 / 0.8)


@dataclass(frozen=True, kw_only=True, eq=False)
class Traffic:
    """Decisions of a window as the challenger sees them; every column has shape [N].

    `score`: the challenger's gate score. `asked`: whether the large model's answer was requested. `probability`: the
    probability of the request, in [`floor`, 1]. `disagrees`: whether the challenger's answer differs from the large
    one, or a requested answer is unknown; ignored if `asked` is false. `unit`: the independent unit, such as all items
    of one caller's document; None if every item is its own unit.

    Raises DataError for columns of different lengths, scores that are not finite and probabilities out of range.
    """

    score: NDArray[np.float64]
    asked: NDArray[np.bool_]
    probability: NDArray[np.float64]
    disagrees: NDArray[np.bool_]
    floor: float
    unit: NDArray[np.object_] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.floor <= 1:
            raise DataError(f"the least probability is {self.floor}", where="floor", hint="It must lie in (0, 1]")
        for name, kind in (("score", float), ("asked", bool), ("probability", float), ("disagrees", bool)):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=kind))
            if getattr(self, name).shape != self.score.shape:
                raise DataError(f"shape {getattr(self, name).shape}, expected {self.score.shape}", where=name)
        if not np.isfinite(self.score).all():
            raise DataError("gate scores must be finite", where="score")
        inside = (self.probability >= self.floor) & (self.probability <= 1)
        if not inside.all():
            raise DataError(
                f"{(~inside).sum()} decisions have a probability outside [{self.floor}, 1]",
                where="probability",
                hint="Begin the window after the audit share was last below its announced floor",
            )
        if self.unit is not None and len(self.unit) != len(self.score):
            raise DataError(f"length {len(self.unit)}, expected {len(self.score)}", where="unit")

    def __len__(self) -> int:
        return len(self.score)


class TrafficPath(ThresholdPath):
    """The tested path of thresholds over a window, from `escalate all` towards keeping more.

    `bet` is the planned share nu, which must not depend on outcomes of the window; default `best_bet` for the window's
    units. Raises ConfigError for a bet outside (0, 0.99].
    """

    def __init__(self, traffic: Traffic, epsilon: float, delta: float, bet: float | None = None) -> None:
        self.epsilon, self.delta, self._floor = epsilon, delta, traffic.floor
        self._scores = traffic.score
        unit_N = np.arange(len(traffic)) if traffic.unit is None else pd.factorize(traffic.unit)[0]
        self.num_units = int(unit_N.max(initial=-1)) + 1
        bet = best_bet(self.num_units, traffic.floor * epsilon, delta) if bet is None else bet
        if not 0 < bet <= LARGEST_BET:
            raise ConfigError(f"bet = {bet}", where="certificate", hint=f"It must lie in (0, {LARGEST_BET}]")
        self._bets_G, self._weights_G = mixture(bet)
        self.fewest_units = fewest_without_loss(self._bets_G, self._weights_G, self._floor * epsilon, delta)
        size_U = np.bincount(unit_N, minlength=self.num_units)
        lost_rows = np.flatnonzero(traffic.asked & traffic.disagrees)
        lost_rows = lost_rows[np.argsort(-traffic.score[lost_rows], kind="stable")]
        # As the threshold falls below one lost score after the other, X of its unit grows from `before` to `after`.
        steps = traffic.floor / traffic.probability[lost_rows] / size_U[unit_N[lost_rows]]
        after = pd.Series(steps).groupby(unit_N[lost_rows]).cumsum().to_numpy(dtype=np.float64)
        self._lost_scores, self._before, self._after = traffic.score[lost_rows], after - steps, after

    def certified(self) -> float:
        """The lowest threshold that is certified together with all above it; +inf if none is."""
        log_K = self._log_wealth(self.epsilon)  # after 0, 1, 2, ... lost items
        passes = log_K >= math.log(1 / self.delta)
        if not passes[0]:
            return math.inf
        affordable = len(passes) - 1 if passes.all() else int(np.argmin(passes)) - 1
        return lowest_threshold(self._scores, self._lost_scores, affordable)

    def p_value(self, threshold: float) -> float:
        """p-value of H0: of what it keeps at `threshold`, the challenger disagrees on a share of at least epsilon."""
        return min(1.0, math.exp(-self._log_wealth(self.epsilon)[self._count(threshold)]))

    def upper_bound(self, threshold: float) -> float:
        """Upper confidence bound, at delta, on the mean disagreement on the items kept at `threshold`."""
        count = self._count(threshold)
        return largest_level(lambda epsilon: float(self._log_wealth(epsilon)[count]), math.log(1 / self.delta))

    def _count(self, threshold: float) -> int:
        """Lost items with a score above `threshold`."""
        return int(np.searchsorted(-self._lost_scores, -threshold))

    def _log_wealth(self, epsilon: float) -> NDArray[np.float64]:
        """ln K after the threshold has fallen below the first k lost scores, for k = 0, 1, ...; never rising."""
        level = self._floor * epsilon
        grown_LG = np.log1p(-self._bets_G * (self._after[:, None] - level))
        grown_LG -= np.log1p(-self._bets_G * (self._before[:, None] - level))
        start_G = self.num_units * np.log1p(self._bets_G * level)
        paths = start_G + np.vstack([np.zeros_like(start_G), np.cumsum(grown_LG, axis=0)])
        return np.asarray(logsumexp(paths, axis=1, b=self._weights_G))


def best_bet(num_units: int, level: float, delta: float) -> float:
    """The bet that allows the most lost units among a window's units.

    The tested path starts with the surest items and ends when one more loss would exceed the budget: with the planned
    bet's share of the wealth,

        losses(nu) = (n ln(1 + nu a) - ln(1 / delta')) / (ln(1 + nu a) - ln(1 - nu (1 - a)))

    The number of units in a window is independent of their outcomes. `level` is a, the floor times epsilon.
    """
    bets_B = np.linspace(0.01, LARGEST_BET, 99)
    gain_B = np.log1p(bets_B * level)
    needed_evidence = math.log(1 / delta) - math.log1p(-_SAFETY_WEIGHT)
    losses_B = (num_units * gain_B - needed_evidence) / (gain_B - np.log1p(-bets_B * (1 - level)))
    return float(bets_B[losses_B.argmax()])


def mixture(bet: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The planned bet and the safety bets, [G], and their weights, which sum to one."""
    bets = np.array([bet, *_SAFETY_BETS])
    return bets, np.array([1 - _SAFETY_WEIGHT, *[_SAFETY_WEIGHT / len(_SAFETY_BETS)] * len(_SAFETY_BETS)])
