"""The alarm of a version's certificate, given as soon after its promise is broken as can be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kcm.certify.alarm import RateAlarm
from kcm.certify.certificate import Certificate

UNSETTLED = 20_000  # decisions of which labels and large answers may still come in; what comes later is not seen


class Watch:
    """Bets on decision after decision, in the order of the log; every replica bets alike.

    What is certified without labels is refuted by disagreement with the large model, else labels refute it. An audit
    that is lost, or has not ended, refutes nothing.
    """

    def __init__(self, certificate: Certificate) -> None:
        self.label_free = certificate.method == "traffic"
        self._limit, self._delta = certificate.epsilon, certificate.delta
        self._settled = RateAlarm(certificate.epsilon, certificate.delta)
        self.after = 0  # the last decision that is settled
        self.alarm = False
        self.suspicion = 0.0

    def look(self, events: Sequence[tuple[int, float, bool]]) -> None:
        """Bet on all decisions above `after`: number, audit share, and whether a loss is known."""
        old, recent = events[:-UNSETTLED], events[-UNSETTLED:]
        _observe(self._settled, old)
        if old:
            self.after = old[-1][0]
        now = RateAlarm(self._limit, self._delta)
        now.load_state_dict(self._settled.state_dict())
        _observe(now, recent)
        self.alarm, self.suspicion = self.alarm or now.alarm, now.suspicion


def _observe(alarm: RateAlarm, events: Sequence[tuple[int, float, bool]]) -> None:
    share_N = np.array([share for _, share, _ in events], dtype=np.float64)
    lost_N = np.array([lost for _, _, lost in events], dtype=bool)
    alarm.observe(np.where(lost_N, 1 / share_N, 0.0), share_N)
