"""The alarm of a version's certificate, given as soon after its promise is broken as can be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kcm.certify.alarm import RateAlarm
from kcm.certify.certificate import Certificate
from pipelines.serve.log.writer import LogWriter

AT_ONCE = 100_000  # decisions that are read together
UNSETTLED = 20_000  # decisions of which labels and large answers may still come in; what comes later is not seen


class Watch:
    """Bets on decision after decision, in the order of the log, that losses exceed `limit`; every replica bets alike.

    A loss is a disagreement with the large model where `label_free`, else one that a label tells. An audit that is
    lost, or has not ended, refutes nothing.
    """

    def __init__(self, limit: float, delta: float, *, label_free: bool) -> None:
        self.label_free, self._limit, self._delta = label_free, limit, delta
        self._settled = RateAlarm(limit, delta)
        self.after = 0  # the last decision that is settled
        self.alarm = False
        self.suspicion, self.e_value, self.num_decisions = 0.0, 1.0, 0

    @classmethod
    def of(cls, certificate: Certificate) -> Watch:
        """Watches a certificate: what is certified without labels is refuted by disagreement, else labels refute it."""
        return cls(certificate.epsilon, certificate.delta, label_free=certificate.method == "traffic")

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
        self.e_value, self.num_decisions = now.e_value, now.num_decisions

    async def read_on(self, log: LogWriter, version: str) -> None:
        """Look at what is new in the log about a version; a long log in pieces. Raises LogUnavailableError."""
        while True:
            before = self.after
            events = await log.events(version, before, AT_ONCE, label_free=self.label_free)
            self.look(events)
            if len(events) < AT_ONCE or self.after == before:
                return


def _observe(alarm: RateAlarm, events: Sequence[tuple[int, float, bool]]) -> None:
    share_N = np.array([share for _, share, _ in events], dtype=np.float64)
    lost_N = np.array([lost for _, _, lost in events], dtype=bool)
    alarm.observe(np.where(lost_N, 1 / share_N, 0.0), share_N)
