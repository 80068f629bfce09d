"""Alarms that may be looked at after every decision, for ever, and are not slowed down by a long good past.

For decision i let x in [0, 1] be an event whose mean is promised to stay at or below a limit, A whether it was looked
at, pi >= s the probability of that and s the announced floor of pi at the time. Then Y = A x / pi has the mean of x.
Likelihood ratios of a mean m times the limit,

    f_m(Y) = 1 + lambda_m (Y - limit)        lambda_m = (m - 1) s / (1 - s limit),

multiply to an e-process: as long as the promise holds, their product is a nonnegative supermartingale, whatever m. One
is started every BLOCK decisions, with the weight 6 / (pi k)^2 for the k-th, and for several m each. What has not been
started yet is held as it is. The alarm is given when the sum reaches 1 / delta: under the promise that ever happens
with probability delta at most (Ville's inequality). Starting anew keeps a good past from having to be outweighed
(e-detectors, arXiv 2203.03532, here with a bounded probability of a false alarm in place of its mean time).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kcm.errors import ConfigError, DataError

BLOCK = 1000  # decisions between two starts
_MULTIPLES = np.array([1.5, 2.0, 4.0, 10.0])  # of the limit
_SHARES = np.array([0.2, 0.5, 0.2, 0.1])  # of a start's weight


class RateAlarm:
    """Tells when the mean of an event exceeds `limit`; `delta` is the probability that it ever does so falsely.

    Raises ConfigError for a limit or a delta outside (0, 1).
    """

    def __init__(self, limit: float, delta: float) -> None:
        for name, value in (("limit", limit), ("delta", delta)):
            if not 0 < value < 1:
                raise ConfigError(f"{name} = {value}", where="alarm", mend="It must lie between 0 and 1")
        self.limit, self.delta = limit, delta
        self.num_decisions = 0
        self.largest = 1.0  # the e-value's largest so far, which decides
        self.suspicion = 0.0  # log likelihood ratio of the best start of all for twice the limit: no e-value
        self._num_started, self._held = 0, 1.0
        self._wealth_M = np.zeros(len(_MULTIPLES))

    def observe(self, events: ArrayLike, share: ArrayLike = 1.0) -> None:
        """Add decisions in their order: `events` [N] are Y = A x / pi, `share` [N] or a number the floors s of pi.

        A decision that could not have the event belongs here too, with Y = 0. Raises DataError where Y > 1 / s.
        """
        y_N = np.asarray(events, dtype=np.float64)
        share_N = np.broadcast_to(np.asarray(share, dtype=np.float64), y_N.shape)
        if not ((share_N > 0) & (share_N <= 1) & (y_N >= 0) & (y_N * share_N <= 1 + 1e-9)).all():
            raise DataError("an event lies outside [0, 1 / share]", where="alarm")
        position = 0
        while position < len(y_N):
            if self.num_decisions % BLOCK == 0:
                self._start()
            stop = min(len(y_N), position + BLOCK - self.num_decisions % BLOCK)
            self._bet(y_N[position:stop], share_N[position:stop])
            self.num_decisions += stop - position
            position = stop

    @property
    def e_value(self) -> float:
        """The wealth now: its expectation is 1 at most while the promise holds."""
        return self._held + float(self._wealth_M.sum())

    @property
    def alarm(self) -> bool:
        """Whether the limit is refuted."""
        return self.largest >= 1 / self.delta

    def state_dict(self) -> dict[str, Any]:
        """The state as plain numbers."""
        return {
            "num_decisions": self.num_decisions,
            "largest": self.largest,
            "suspicion": self.suspicion,
            "num_started": self._num_started,
            "held": self._held,
            "wealth": self._wealth_M.tolist(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.num_decisions, self.largest, self.suspicion = state["num_decisions"], state["largest"], state["suspicion"]
        self._num_started, self._held, self._wealth_M = state["num_started"], state["held"], np.array(state["wealth"])

    def _start(self) -> None:
        self._num_started += 1
        weight = 6 / (math.pi * self._num_started) ** 2
        self._held -= weight
        self._wealth_M = self._wealth_M + weight * _SHARES

    def _bet(self, y_N: NDArray[np.float64], share_N: NDArray[np.float64]) -> None:
        """Decisions between two starts, each bet on before it is seen."""
        # A ratio of m is asked for as far as it leaves something when nothing happens: m times the limit below 1 / s.
        multiples_MN = np.minimum(_MULTIPLES[:, None], 0.99 / (self.limit * share_N))
        bets_MN = np.maximum(multiples_MN - 1, 0) * share_N / (1 - share_N * self.limit)
        logs_MN = np.log1p(bets_MN * (y_N - self.limit))
        paths_MN = np.cumsum(logs_MN, axis=1)
        with np.errstate(over="ignore"):
            wealth_MN = self._wealth_M[:, None] * np.exp(paths_MN)
        self.largest = max(self.largest, self._held + float(wealth_MN.sum(axis=0).max()))
        self._wealth_M = np.minimum(wealth_MN[:, -1], 1e300)
        double_N = paths_MN[1]
        lowest_N = np.minimum.accumulate(np.minimum(double_N, 0.0))
        self.suspicion = float(max(self.suspicion + double_N[-1], double_N[-1] - lowest_N[-1]))


def combined(*alarms: RateAlarm) -> float:
    """The mean of e-values, which is one for the promise that none of the limits is exceeded."""
    return float(np.mean([alarm.e_value for alarm in alarms]))
