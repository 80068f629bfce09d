"""Alarms that are valid at every decision, for ever, and that a long good past does not slow down.

For decision i, let x in [0, 1] be an event whose mean is promised to stay at or below a limit. A = 1 if the decision
was audited, pi >= s is the probability of the audit, and s the announced floor of pi at the time. Then Y = A x / pi has
the mean of x. With bets for a mean of m times the limit,

    f_m(Y) = 1 + lambda_m (Y - limit)        lambda_m = (m - 1) s / (1 - s limit),

a stake chosen before decision i is multiplied by f_m(Y_i), whose mean is at most 1 while the promise holds. Several m
bet side by side. Each starts with a share of the wealth, the shares sum to one, and each bets by what it has seen:

    suspicion    S = max(0, S + ln f_m(Y)), the CUSUM statistic of Page, 0 at first
    S rises from 0     a start: of cash c, in parts of the initial share, c^2 is staked from the next decision on
    S falls back to 0  the start has failed: the rest of its stake becomes cash again

Validity: stakes and cash are never negative, a stake never exceeds the cash (c <= 1, since a failed start returns less
than it took), and earlier decisions alone decide both. So the wealth, the sum of all cash and stakes, is a nonnegative
supermartingale that starts at 1. While the promise holds, it reaches 1 / delta with probability at most delta, however
the decisions depend on each other (Ville's inequality, as in testing by betting, arXiv 2010.09686).

Delay: a past without events costs nothing, because nothing is staked. A failed start loses as much as its event had
raised S, half of the stake for m = 2. So n failed starts leave cash of about 2 / n and a stake of its square: a past
with n false starts delays the alarm by 2 ln n, however long it lasted. E-detectors (arXiv 2203.03532) restart their
bets too. They bound the mean time to a false alarm, not the probability of a false alarm.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kcm.errors import ConfigError, DataError

_MULTIPLES = np.array([1.5, 2.0, 4.0, 10.0])  # m, as multiples of the limit
_SHARES = (0.2, 0.5, 0.2, 0.1)  # initial share of the wealth for each m
_MOST = 700.0  # largest log wealth of a stake, so that it stays finite


class RateAlarm:
    """Detects when the mean of an event exceeds `limit`; `delta` is the probability of ever raising a false alarm.

    Raises ConfigError for a limit or a delta outside (0, 1).
    """

    def __init__(self, limit: float, delta: float) -> None:
        for name, value in (("limit", limit), ("delta", delta)):
            if not 0 < value < 1:
                raise ConfigError(f"{name} = {value}", where="alarm", hint="It must lie between 0 and 1")
        self.limit, self.delta = limit, delta
        self.num_decisions = 0
        self.largest = 1.0  # the largest e-value so far, which decides
        self._bettors = [_Bettor(share) for share in _SHARES]

    def observe(self, events: ArrayLike, share: ArrayLike = 1.0) -> None:
        """Add decisions in order: `events` [N] are Y = A x / pi, `share` is s, the floors of pi, [N] or one number.

        Decisions that could not have had the event must be added too, with Y = 0. Add each decision once, when it is
        settled. If an outcome is not known yet, either later decisions wait for it, or it counts as Y = 0 for good.
        Unlike the bounds of `monitor`, the wealth does not grow with every Y. One delta therefore does not cover
        several looks at a decision whose outcome becomes known in between. Raises DataError if Y > 1 / s.
        """
        y_N = np.asarray(events, dtype=np.float64)
        share_N = np.broadcast_to(np.asarray(share, dtype=np.float64), y_N.shape)
        if not ((share_N > 0) & (share_N <= 1) & (y_N >= 0) & (y_N * share_N <= 1 + 1e-9)).all():
            raise DataError("an event lies outside [0, 1 / share]", where="alarm")
        # Limit m so that a bet keeps some wealth when nothing happens: m times the limit stays below 1 / s.
        multiples_MN = np.minimum(_MULTIPLES[:, None], 0.99 / (self.limit * share_N))
        bets_MN = np.maximum(multiples_MN - 1, 0) * share_N / (1 - share_N * self.limit)
        logs_MN = np.log1p(bets_MN * (y_N - self.limit))
        position = 0
        for rise in np.flatnonzero(y_N > self.limit).tolist():
            for bettor, log_N in zip(self._bettors, logs_MN, strict=True):
                bettor.fall(log_N[position:rise])
                bettor.rise(float(log_N[rise]))
            self.largest = max(self.largest, self.e_value)  # between two rises it only falls
            position = rise + 1
        for bettor, log_N in zip(self._bettors, logs_MN, strict=True):
            bettor.fall(log_N[position:])
        self.num_decisions += len(y_N)

    @property
    def e_value(self) -> float:
        """The current wealth; its expectation is at most 1 while the promise holds."""
        return sum(bettor.wealth for bettor in self._bettors)

    @property
    def alarm(self) -> bool:
        """Whether the limit is refuted."""
        return self.largest >= 1 / self.delta

    def state_dict(self) -> dict[str, Any]:
        """The state as plain numbers."""
        bettors = [[bettor.cash, bettor.log_stake, bettor.suspicion] for bettor in self._bettors]
        return {"num_decisions": self.num_decisions, "largest": self.largest, "bettors": bettors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from `state_dict`."""
        self.num_decisions, self.largest = state["num_decisions"], state["largest"]
        for bettor, values in zip(self._bettors, state["bettors"], strict=True):
            bettor.cash, bettor.log_stake, bettor.suspicion = values


class _Bettor:
    """Bets for one multiple of the limit. A stake is active exactly while `suspicion` is above 0."""

    def __init__(self, share: float) -> None:
        self._share = self.cash = share
        self.log_stake, self.suspicion = 0.0, 0.0

    @property
    def wealth(self) -> float:
        """Cash plus the current stake."""
        return self.cash + (math.exp(min(self.log_stake, _MOST)) if self.suspicion > 0 else 0.0)

    def rise(self, log: float) -> None:
        """Apply a decision that raises suspicion by `log`; starts a bet on later decisions if none is active."""
        if log <= 0:
            return
        if self.suspicion > 0:
            self.log_stake += log
        else:
            stake = self.cash**2 / self._share
            self.cash -= stake
            self.log_stake = math.log(stake)
        self.suspicion += log

    def fall(self, log_N: NDArray[np.float64]) -> None:
        """Apply decisions that lower suspicion by -`log_N` (none positive); ends the bet when suspicion reaches 0."""
        if self.suspicion == 0 or not len(log_N):
            return
        path_N = np.cumsum(log_N)
        ended = int(np.searchsorted(-path_N, self.suspicion))
        if ended == len(path_N):
            self.suspicion += float(path_N[-1])
            self.log_stake += float(path_N[-1])
        else:
            self.cash += math.exp(min(self.log_stake + float(path_N[ended]), _MOST))
            self.suspicion = 0.0
