"""The alarm that a version's certificate is broken, raised as early as the evidence allows.

One e-process spends the whole delta. It bets on each decision once, in the order of the log, when the outcome of the
decision is final: it was not drawn for an audit, or its audit has ended and (if labels decide) its label has arrived,
or its time is over. An outcome that is unknown by then counts as no loss, permanently. Let Y' be Y if the outcome is
known, and 0 if not. Then Y' <= Y, so the mean of Y' given the earlier bets exceeds no limit that the mean of Y keeps.
The wealth is therefore one supermartingale. It may be checked at any time, and a false alarm has probability delta at
most, whatever makes some outcomes late, as long as the outcomes of later decisions do not.

Two alternatives would be invalid. Betting in the order in which outcomes arrive favours complaints, which arrive first.
Betting on a decision again when its label arrives makes several sequences, of which the best would count.

The price: a decision without an outcome delays the decisions after it until its time is over.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from kcm.certification.monitoring.alarm import RateAlarm
from pipelines.serve.log.decisions import Event

AUDIT_WAIT = timedelta(minutes=10)  # in which an audit ends, unless its replica was killed


class DecisionAlarm(RateAlarm):
    """Bets, decision by decision, that losses exceed `limit`.

    A loss is a disagreement with the large model if `label_free`, and otherwise a loss that a label shows. An outcome
    may take `wait`, counted from the answer. Clocks of replicas may differ by as much: an answer dated further in the
    future is not waited for.
    """

    def __init__(self, limit: float, delta: float, *, label_free: bool, wait: timedelta = AUDIT_WAIT) -> None:
        super().__init__(limit, delta)
        self.label_free, self._wait = label_free, wait
        self.after = 0  # the last decision that was bet on

    def advance(self, events: Sequence[Event], now: datetime) -> bool:
        """Bet on decisions above `after`, in their order; whether on all of them: else the next one is waited for."""
        settled = next((place for place, event in enumerate(events) if self._waits_for(event, now)), len(events))
        if settled:
            share_N = np.array([event.share for event in events[:settled]], dtype=np.float64)
            lost_N = np.array([event.lost for event in events[:settled]], dtype=bool)
            self.observe(np.where(lost_N, 1 / share_N, 0.0), share_N)
            self.after = events[settled - 1].number
        return settled == len(events)

    def state_dict(self) -> dict[str, Any]:
        """The state as plain values, with what it was bet on for."""
        return {"promise": self._promise, "after": self.after, "alarm": super().state_dict()}

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Restore what `state_dict` gave; without it, or for another promise, it stays as it is."""
        if state is not None and state["promise"] == self._promise:
            self.after = state["after"]
            super().load_state_dict(state["alarm"])

    @property
    def _promise(self) -> list[Any]:
        return [self.limit, self.delta, self.label_free]

    def _waits_for(self, event: Event, now: datetime) -> bool:
        return not event.final and abs(now - event.answered_at) < self._wait
