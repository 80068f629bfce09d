"""Audits: after a kept item is answered, the large model is asked about a random share of such items."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence

import numpy as np

from kcm.bundle.answers import Answer, Failure, Input
from kcm.large import Item, LargeAnswer
from pipelines.serve.config import AuditConfig
from pipelines.serve.log.database import LogUnavailableError
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.monitor import Monitor
from pipelines.serve.log.writer import LogWriter
from pipelines.serve.metrics import ServeMetrics

MAX_ONGOING = 16  # requests audited concurrently; audits of further requests are lost
_BUSY = Failure("too many audits are under way")

logger = logging.getLogger("ray.serve")


class Auditor:
    """Audits the kept items of one version, then has its `monitor` read the log.

    `ask` sends items to the large model with the task prompt alone, which is what a certificate compares with. A draw
    is committed before its item is sent. A failed audit is lost, and an audit whose outcome never reaches the log
    counts as lost.
    """

    def __init__(
        self,
        config: AuditConfig,
        answer_names: Sequence[str],
        ask: Callable[[Sequence[Item]], Awaitable[list[LargeAnswer] | Failure]],
        log: LogWriter,
        monitor: Monitor,
        metrics: ServeMetrics,
    ) -> None:
        self._config, self._answer_names, self._ask = config, answer_names, ask
        self._log, self.monitor, self._metrics = log, monitor, metrics
        self._random = random.Random(config.seed)
        self._ongoing: set[asyncio.Task[None]] = set()

    def draw(self, answers: Sequence[Answer], share: float) -> dict[int, str]:
        """Labels of the kept items of a request that are to be audited, each drawn with the probability `share`."""
        small_labels = {item: answer.label for item, answer in enumerate(answers) if answer.route == "small"}
        return {item: label for item, label in small_labels.items() if self._random.random() < share}

    def begin(self, request_id: str, inputs: Sequence[Input], drawn_labels: Mapping[int, str]) -> None:
        """Start to audit the drawn items, whose decisions are in the log already; returns immediately."""
        busy = len(self._ongoing) >= MAX_ONGOING
        items = [] if busy else [Item("", inputs[index].content) for index in drawn_labels]
        task = asyncio.create_task(self._audit(request_id, dict(drawn_labels), items))
        self._ongoing.add(task)
        task.add_done_callback(self._ongoing.discard)

    async def settled(self) -> None:
        """Wait until no audit is running."""
        while self._ongoing:
            await asyncio.wait(self._ongoing)

    async def _audit(self, request_id: str, drawn_labels: Mapping[int, str], items: Sequence[Item]) -> None:
        """Ask about the drawn `items`; without items, the audits are lost."""
        labels: dict[int, str | None] = dict.fromkeys(drawn_labels)
        probabilities: dict[int, np.ndarray] = {}
        try:
            await self._log.flush()
            outcome = await self._ask(items) if items else _BUSY
            if not isinstance(outcome, Failure):
                answers = dict(zip(drawn_labels, outcome, strict=True))
                labels = {item: self._name(answer) for item, answer in answers.items()}
                probabilities = {
                    item: p_C for item, answer in answers.items() if (p_C := answer.probabilities) is not None
                }
            await self._log.call(DecisionLog.finish_audits, request_id, labels, probabilities)
        except LogUnavailableError as error:
            logger.warning("request %s: its audits are lost: %s", request_id, error)
            labels = dict.fromkeys(drawn_labels)
        for index, label in labels.items():
            self._metrics.audited("lost" if label is None else "agree" if label == drawn_labels[index] else "disagree")
        self.monitor.schedule()

    def _name(self, answer: LargeAnswer) -> str | None:
        return None if answer.label is None else self._answer_names[answer.label]
