"""Detects drift: traffic of a version that no longer looks like its certify rows, as one replica sees it."""

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

LOOK_AFTER_S = 5.0  # time in which items gather before they are checked
MOST = 256  # items per check, the first ones: distances must cost less than answers

logger = logging.getLogger("ray.serve")


class Drift:
    """Bets against each limit of a version's reference on the items that this replica answers.

    Disagreement comes from the version's `monitor`, if there is one, which reads the log once for all replicas.

    Each quantity's wealth is an e-process, and so is their mean, however much traffic this replica gets. `kcm update`
    reads drift from the log. If too many inputs are far from all known classes, `escalate_novel` receives the distance
    above which inputs must escalate. Nothing else changes.
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
        """Queue judged items for the next check."""
        self._waiting += judgements[: MOST - len(self._waiting)]
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_soon())

    async def look(self) -> None:
        """Bet on the gathered items, and update the log and the metrics."""
        judgements, self._waiting = self._waiting, []
        if judgements:
            await asyncio.to_thread(self._bet, judgements)
        try:
            self._sum_up()
            if self._log:
                await self._log.call(DecisionLog.put_drift, self._version, self.e_values)
        except LogUnavailableError as error:
            logger.warning("cannot log the drift of version %s: %s", self._version, error)
        self._metrics.set_drift(self._version, self.e_values)

    def _bet(self, judgements: Sequence[Judgement]) -> None:
        features_ND, novelty = np.stack([judgement.features_D for judgement in judgements]), self._reference.novelty
        events = {
            "call_rate": np.array([not judgement.keeps for judgement in judgements]),
            "distance": self._reference.distance.unusual(features_ND),
            "labels": self._reference.labels.unusual(np.array([judgement.label for judgement in judgements])),
            "novelty": np.array([judgement.novelty for judgement in judgements])
            > (novelty.threshold if novelty else np.inf),
        }
        for name, alarm in self._alarms.items():
            alarm.observe(events[name].astype(np.float64))
        if novelty and novelty.farthest is not None and "novelty" in self._alarms and self._alarms["novelty"].alarm:
            self._escalate_novel(novelty.farthest)

    def _sum_up(self) -> None:
        alarms: dict[str, RateAlarm] = dict(self._alarms)
        if self._monitor and self._monitor.disagreement:
            alarms["disagreement"] = self._monitor.disagreement
        e_values = {name: alarm.e_value for name, alarm in alarms.items()}
        self.e_values = e_values | {COMBINED: float(np.mean(list(e_values.values()))) if e_values else 1.0}

    async def _look_soon(self) -> None:
        await asyncio.sleep(LOOK_AFTER_S)
        await self.look()
