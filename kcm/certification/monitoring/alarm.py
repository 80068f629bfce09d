"""Alarms that may be looked at after every decision, for ever, and are not slowed down by a long good past.

For decision i let x in [0, 1] be an event whose mean is promised to stay at or below a limit, A whether it was looked
at, pi >= s the probability of that and s the announced floor of pi at the time. Then Y = A x / pi has the mean of x.
With bets for a mean of m times the limit,

    f_m(Y) = 1 + lambda_m (Y - limit)        lambda_m = (m - 1) s / (1 - s limit),

a stake that was chosen before decision i is multiplied by f_m(Y_i), whose mean is 1 at most as long as the promise
holds. Each of several m begins with a part of the wealth, the parts sum to one, and bets by what it has seen:

    suspicion    S = max(0, S + ln f_m(Y)), the CUSUM statistic of Page, 0 at first
    S rises from 0     a start: of cash c, in parts of what m began with, c^2 is staked from the next decision on
    S falls back to 0  the start has failed: what is left of its stake becomes cash again

Validity: stakes and cash are never negative, a stake never exceeds the cash (c <= 1, since a start that fails gives
back less than it took), and both are decided by earlier decisions alone. So wealth, the sum of all cash and stakes, is
a nonnegative supermartingale that begins at 1, and reaches 1 / delta with probability delta at most while the promise
holds, however the decisions depend on each other (Ville's inequality, as in testing by betting, arXiv 2010.09686).

Delay: a past without events costs nothing, as nothing is staked. A start that fails loses what its event had raised S
by, half of the stake for m = 2, so that n failed starts leave cash of about 2 / n and a stake of its square: a past
with n false starts delays the alarm by 2 ln n, however long it lasted. E-detectors (arXiv 2203.03532) begin such bets
anew, too, but bound the mean time to a false alarm, not the probability that there ever is one.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kcm.errors import ConfigError, DataError

_MULTIPLES = np.array([1.5, 2.0, 4.0, 10.0])  # of the limit
_SHARES = (0.2, 0.5, 0.2, 0.1)  # of the wealth, at first
_MOST = 700.0  # the largest log wealth of a stake, so that it stays finite


class RateAlarm:
    """Tells when the mean of an event exceeds `limit`; `delta` is the probability that it ever does so falsely.

    Raises ConfigError for a limit or a delta outside (0, 1).
    """

    def __init__(self, limit: float, delta: float) -> None:
        for name, value in (("limit", limit), ("delta", delta)):
            if not 0 < value < 1:
                raise ConfigError(f"{name} = {value}", where="alarm", hint="It must lie between 0 and 1")
        self.limit, self.delta = limit, delta
        self.num_decisions = 0
        self.largest = 1.0  # the e-value's largest so far, which decides
        self._bettors = [_Bettor(share) for share in _SHARES]

    def observe(self, events: ArrayLike, share: ArrayLike = 1.0) -> None:
        """Add decisions in their order: `events` [N] are Y = A x / pi, `share` [N] or a number the floors s of pi.

        A decision that could not have the event belongs here too, with Y = 0. Decisions are added once, when they are
        settled: where an outcome is not known yet, later ones wait, or it counts with Y = 0 for good. Unlike the ends
        of `monitor`, the wealth does not grow with every Y, so that looks at one decision with what is known of it at
        several times are not covered by one delta. Raises DataError where Y > 1 / s.
        """
        y_N = np.asarray(events, dtype=np.float64)
        share_N = np.broadcast_to(np.asarray(share, dtype=np.float64), y_N.shape)
        if not ((share_N > 0) & (share_N <= 1) & (y_N >= 0) & (y_N * share_N <= 1 + 1e-9)).all():
            raise DataError("an event lies outside [0, 1 / share]", where="alarm")
        # A ratio of m is asked for as far as it leaves something when nothing happens: m times the limit below 1 / s.
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
        """The wealth now: its expectation is 1 at most while the promise holds."""
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
        """Restore what `state_dict` gave."""
        self.num_decisions, self.largest = state["num_decisions"], state["largest"]
        for bettor, values in zip(self._bettors, state["bettors"], strict=True):
            bettor.cash, bettor.log_stake, bettor.suspicion = values


class _Bettor:
    """Bets for one multiple of the limit. A stake is out exactly while `suspicion` lies above 0."""

    def __init__(self, share: float) -> None:
        self._share = self.cash = share
        self.log_stake, self.suspicion = 0.0, 0.0

    @property
    def wealth(self) -> float:
        """Cash, and the stake as it stands."""
        return self.cash + (math.exp(min(self.log_stake, _MOST)) if self.suspicion > 0 else 0.0)

    def rise(self, log: float) -> None:
        """One decision that raises suspicion by `log`; it starts a bet where none is out, on what comes after it."""
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
        """Decisions that lower suspicion by -`log_N`, none of them positive; the bet ends where that reaches 0."""
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
