"""Watching a deployed promise on audited traffic, at any time and for as long as one likes.

A random share of the kept requests is also sent to the large model; the probability of each audit is logged. With
A = 1 where request i was audited (probability pi_i) and x_i what it lost,

    Y_i = A_i x_i / pi_i        has the mean loss over all requests, escalated ones losing nothing.

Without labels, x = 1 where small and large disagree bounds the loss from above: the small model can only have lost
where the two differ. With labels, x = 1 where the small model is wrong and the large one right, or, where wins are
credited, the difference of the two. A confidence sequence of the mean of Y holds at all times together (betting,
arXiv 2010.09686, with its aGRAPA bets; for weighted outcomes see arXiv 2210.10768), so that it may be looked at after
every request.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kcm.errors import ConfigError, DataError

_GRID_SIZE = 1000
_CAUTION = 0.5  # share of the wealth that a single bet may lose


class AuditMonitor:
    """Confidence sequence of the mean loss; each of its ends holds, at all times, with probability 1 - delta.

    `epsilon` is what was promised, `min_audit_probability` the smallest probability any audit will have. Losses lie in
    [0, 1], or in [-1, 1] where `credits_wins`.
    """

    def __init__(
        self, epsilon: float, delta: float, min_audit_probability: float, *, credits_wins: bool = False
    ) -> None:
        for name, value in (("epsilon", epsilon), ("delta", delta), ("min_audit_probability", min_audit_probability)):
            if not 0 < value <= 1:
                raise ConfigError(f"{name} must lie in (0, 1], got {value}", where="monitor")
        self.epsilon, self.delta = epsilon, delta
        self.num_requests, self.num_audited = 0, 0
        self._floor, self._lowest = min_audit_probability, -1.0 if credits_wins else 0.0
        self._means = np.union1d(
            np.linspace(self._lowest, 1, _GRID_SIZE + 1), [epsilon]
        )  # candidates for the mean loss
        self._levels = self._scaled(self._means)
        self._wealth = np.zeros(
            (2, len(self._means))
        )  # log wealth of betting on a mean above, and below, each candidate
        self._refuted = np.zeros((2, len(self._means)), dtype=bool)
        start = float(self._scaled(np.array([epsilon]))[0])
        self._count, self._sum, self._squares = 1, start, start * (1 - start)

    def observe(self, audited: ArrayLike, probability: ArrayLike, loss: ArrayLike) -> None:
        """Add requests: `audited` bool [N], the `probability` [N] their audit had, and their `loss` [N].

        Escalated and unaudited requests belong here too, as not audited; their probability and loss are not read. An
        audit whose outcome is not known yet is to be held back until it is. Raises DataError for a probability below
        the announced minimum and for losses out of range.
        """
        audited_N = np.asarray(audited, dtype=bool)
        probability_A = np.asarray(probability, dtype=np.float64)[audited_N]
        loss_A = np.asarray(loss, dtype=np.float64)[audited_N]
        if not ((probability_A >= self._floor) & (probability_A <= 1)).all():
            raise DataError(f"audit probabilities must lie in [{self._floor}, 1]", where="monitor")
        if not ((loss_A >= self._lowest) & (loss_A <= 1)).all():
            raise DataError(f"losses must lie in [{self._lowest}, 1]", where="monitor")
        self._bet(self._scaled(loss_A / probability_A), len(audited_N) - len(loss_A))
        self.num_requests += len(audited_N)
        self.num_audited += len(loss_A)

    @property
    def low(self) -> float:
        """Lower end: the mean loss lies above it."""
        return float(self._means[self._refuted[0]].max(initial=self._lowest))

    @property
    def high(self) -> float:
        """Upper end: the mean loss lies below it."""
        return float(self._means[self._refuted[1]].min(initial=1.0))

    @property
    def alarm(self) -> bool:
        """Whether the promise is refuted: the lower end has reached epsilon."""
        return self.low >= self.epsilon

    def _scaled(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Y, or a mean of it, on the scale [0, 1] that Y / its largest value spans."""
        return (self._floor * values - self._lowest) / (1 - self._lowest)

    def _bet(self, values: NDArray[np.float64], num_idle: int) -> None:
        """Bet on audited `values` and on `num_idle` requests without a loss, by what was known before them."""
        mean, level = self._sum / self._count, self._levels
        gap = mean - level
        bet = gap / (self._squares / self._count + gap**2)
        idle = float(self._scaled(np.zeros(1))[0])
        with np.errstate(divide="ignore"):
            bets = np.stack([np.clip(bet, 0, _CAUTION / level), np.clip(bet, -_CAUTION / (1 - level), 0)])
        self._wealth += num_idle * np.log1p(bets * (idle - level))
        for value in values:
            self._wealth += np.log1p(bets * (value - level))
        self._refuted |= self._wealth >= -math.log(self.delta)
        self._count += len(values) + num_idle
        self._sum += float(values.sum()) + num_idle * idle
        self._squares += float(np.square(values - mean).sum()) + num_idle * (idle - mean) ** 2
