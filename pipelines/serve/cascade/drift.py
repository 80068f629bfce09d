"""Whether the traffic of a version still looks like the rows that it was certified on, as one replica sees it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import numpy as np

from kcm.bundle.answers import Judgement
from kcm.certification.monitoring.alarm import RateAlarm
from kcm.certification.monitoring.drift import ALARM_DELTA, DriftReference
from pipelines.serve.log.alarm import COMBINED
from pipelines.serve.log.database import LogUnavailableError
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.monitor import Monitor
from pipelines.serve.log.writer import LogWriter
from pipelines.serve.metrics import ServeMetrics

LOOK_AFTER_S = 5.0  # time in which items gather before they are looked at
MOST = 256  # items of one look, the first ones: distances must not cost what answers do

logger = logging.getLogger("ray.serve")


class Drift:
    """Bets against each limit of a version's reference on what this replica answers.

    Of disagreement the version's `monitor` tells, where there is one: it is read from the log, once for all replicas.

    Each quantity's wealth is an e-process, and so is their mean, however much traffic this replica gets. The log
    tells `kcm update` of drift. Where too many inputs lie far from all known
    classes, `escalate_novel` is told from which distance on they have to escalate. Nothing else changes.
    """

    def __init__(
        self,
        reference: DriftReference,
        version: str,
        log: LogWriter | None,
        metrics: ServeMetrics,
        monitor: Monitor | None = None,
        escalate_novel: Callable[[float], None] = lambda farthest: None,
    ) -> None:
        self._reference, self._version, self._log, self._metrics = reference, version, log, metrics
        self._monitor, self._escalate_novel = monitor, escalate_novel
        limits = reference.limits()
        limits.pop("disagreement", None)
        self._alarms = {name: RateAlarm(limit, ALARM_DELTA) for name, limit in limits.items()}
        self._waiting: list[Judgement] = []
        self._looking: asyncio.Task[None] | None = None
        self.e_values: dict[str, float] = {}

    def add(self, judgements: Sequence[Judgement]) -> None:
        """Have items that were judged looked at soon."""
        self._waiting += judgements[: MOST - len(self._waiting)]
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_soon())

    async def look(self) -> None:
        """Bet on the items that have gathered, and tell the log and the metrics."""
        seen, self._waiting = self._waiting, []
        if seen:
            await asyncio.to_thread(self._bet, seen)
        try:
            self._sum_up()
            if self._log:
                await self._log.call(DecisionLog.put_drift, self._version, self.e_values)
        except LogUnavailableError as error:
            logger.warning("drift of version %s is not in the log: %s", self._version, error)
        self._metrics.set_drift(self._version, self.e_values)

    def _bet(self, seen: Sequence[Judgement]) -> None:
        features_ND, novelty = np.stack([each.features_D for each in seen]), self._reference.novelty
        events = {
            "call_rate": np.array([not each.keeps for each in seen]),
            "distance": self._reference.distance.unusual(features_ND),
            "labels": self._reference.labels.unusual(np.array([each.label for each in seen])),
            "novelty": np.array([each.novelty for each in seen]) > (novelty.threshold if novelty else np.inf),
        }
        for name, alarm in self._alarms.items():
            alarm.observe(events[name].astype(np.float64))
        if novelty and novelty.farthest is not None and "novelty" in self._alarms and self._alarms["novelty"].alarm:
            self._escalate_novel(novelty.farthest)

    def _sum_up(self) -> None:
        known: dict[str, RateAlarm] = dict(self._alarms)
        if self._monitor and self._monitor.disagreement:
            known["disagreement"] = self._monitor.disagreement
        e_values = {name: alarm.e_value for name, alarm in known.items()}
        self.e_values = e_values | {COMBINED: float(np.mean(list(e_values.values()))) if e_values else 1.0}

    async def _look_soon(self) -> None:
        await asyncio.sleep(LOOK_AFTER_S)
        await self.look()
