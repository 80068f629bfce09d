"""Detects unknown classes: too many inputs of a version lie far from all known classes, as one replica sees it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import numpy as np

from kcm.bundle.answers import Judgement
from kcm.certification.monitoring.alarm import RateAlarm
from kcm.certification.monitoring.novelty import ALARM_DELTA, NoveltyReference
from pipelines.serve.log.database import LogUnavailableError
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.writer import LogWriter
from pipelines.serve.metrics import ServeMetrics

LOOK_AFTER_S = 5.0  # time in which items gather before they are checked
MOST = 256  # items per check, the first ones

logger = logging.getLogger("ray.serve")


class NoveltyWatch:
    """Bets that more of this replica's inputs lie beyond the reference's threshold than its limit allows.

    The wealth is an e-process, however much traffic this replica gets. `kcm update` reads it from the log. When it
    raises the alarm, `escalate_novel` receives the distance above which inputs must escalate. Nothing else changes.
    """

    def __init__(
        self,
        reference: NoveltyReference,
        version: str,
        log: LogWriter | None,
        metrics: ServeMetrics,
        escalate_novel: Callable[[float], None] = lambda farthest: None,
    ) -> None:
        self._reference, self._version, self._log, self._metrics = reference, version, log, metrics
        self._escalate_novel, self._alarm = escalate_novel, RateAlarm(reference.limit, ALARM_DELTA)
        self._waiting: list[float] = []
        self._looking: asyncio.Task[None] | None = None

    @property
    def e_value(self) -> float:
        """The evidence so far, 1 at first."""
        return self._alarm.e_value

    @property
    def alarm(self) -> bool:
        """Whether new classes have been noticed."""
        return self._alarm.alarm

    def add(self, judgements: Sequence[Judgement]) -> None:
        """Queue judged items for the next check."""
        self._waiting += [judgement.novelty for judgement in judgements[: MOST - len(self._waiting)]]
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_soon())

    async def look(self) -> None:
        """Bet on the gathered items, and update the log and the metrics."""
        novelty_N, self._waiting = np.array(self._waiting), []
        self._alarm.observe((novelty_N > self._reference.threshold).astype(np.float64))
        if self.alarm and self._reference.farthest is not None:
            self._escalate_novel(self._reference.farthest)
        try:
            if self._log:
                await self._log.call(DecisionLog.put_novelty, self._version, self.e_value)
        except LogUnavailableError as error:
            logger.warning("cannot log the evidence of new classes of version %s: %s", self._version, error)
        self._metrics.set_novelty(self._version, self.e_value)

    async def _look_soon(self) -> None:
        await asyncio.sleep(LOOK_AFTER_S)
        await self.look()
