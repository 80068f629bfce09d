"""Audits: a random share of what the small side keeps is put to the large model too, after it has been answered."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Literal, Protocol

from kcm.bundle.runtime import Answer, Input
from kcm.large import Item, LargeAnswer
from pipelines.serve.cascade.escalation import Trouble
from pipelines.serve.deploy.config import AuditConfig
from pipelines.serve.log.feedback import Audit, Labelled, LogUnavailableError
from pipelines.serve.log.watch import Bounds, Watch

Outcome = Literal["agree", "disagree", "lost"]

_BUSY = Trouble("too many audits are under way", 429)

logger = logging.getLogger("ray.serve")


class AuditStore(Protocol):
    """Where audits are kept; `pipelines.serve.log.store.Store` is one."""

    async def add_audits(self, request_id: str, audits: Sequence[Audit]) -> None:
        """Keep audits that are about to be made."""

    async def finish_audits(self, request_id: str, audits: Sequence[Audit]) -> list[Labelled]:
        """Keep what the large model said; gives those whose true label came before."""


class AuditRecorder(Protocol):
    """What counts audits; `pipelines.serve.deploy.metrics.ServeMetrics` is one."""

    def audited(self, outcome: Outcome) -> None:
        """Count an audit."""

    def watched(self, version: str, bounds: Bounds) -> None:
        """Tell how things stand with a version's promise."""


class Auditor:
    """Audits the kept items of one version, and tells `watch` what they and true labels show.

    `ask` puts items to the large model under the task prompt alone, which is what a certificate compares with. An audit
    is stored before it is made, so that a label which comes in the meantime is held back; one that fails is lost, and
    its item counts for nothing.
    """

    def __init__(
        self,
        config: AuditConfig,
        version: str,
        answer_names: Sequence[str],
        ask: Callable[[Sequence[Item]], Awaitable[list[LargeAnswer] | Trouble]],
        watch: Watch,
        store: AuditStore | None,
        recorder: AuditRecorder,
    ) -> None:
        self._config, self._version, self._answer_names = config, version, answer_names
        self._ask, self._watch, self._store, self._recorder = ask, watch, store, recorder
        self._random = random.Random(config.seed)
        self._ongoing: set[asyncio.Task[None]] = set()

    def answered(self, request_id: str, inputs: Sequence[Input], answers: Sequence[Answer]) -> None:
        """Draw from the kept items of an answered request; returns before any of them is audited."""
        drawn = [index for index, answer in enumerate(answers) if answer.route == "small" and self._draws()]
        self._watch.passed(len(answers) - len(drawn))
        if not drawn:
            return
        audits = [Audit(index, self._version, self._config.share, answers[index].label) for index in drawn]
        items = [Item("", inputs[index].content) for index in drawn]
        busy = len(self._ongoing) >= self._config.max_ongoing
        task = asyncio.create_task(self._audit(request_id, audits, [] if busy else items))
        self._ongoing.add(task)
        task.add_done_callback(self._ongoing.discard)

    def labelled(self, items: Sequence[Labelled]) -> None:
        """True labels have come, of this version's items or of others."""
        for item in items:
            if item.audit is None or item.audit.model_version == self._version:
                self._watch.labelled(item)
        self._recorder.watched(self._version, self._watch.bounds)

    async def settled(self) -> None:
        """Wait until no audit is under way."""
        while self._ongoing:
            await asyncio.wait(self._ongoing)

    def _draws(self) -> bool:
        return self._random.random() < self._config.share

    async def _audit(self, request_id: str, audits: Sequence[Audit], items: Sequence[Item]) -> None:
        """Ask for `items`, those of the audits, or for none where they are lost."""
        try:
            if self._store:
                await self._store.add_audits(request_id, audits)
            outcome = await self._ask(items) if items else _BUSY
            labels = [None] * len(audits) if isinstance(outcome, Trouble) else [self._name(each) for each in outcome]
            done = [replace(audit, large_label=label) for audit, label in zip(audits, labels, strict=True)]
            known = await self._store.finish_audits(request_id, done) if self._store else []
        except LogUnavailableError as error:
            logger.warning("request %s: its audits are not stored: %s", request_id, error)
            done, known = list(audits), []
        for audit in done:
            self._tell(audit)
        self.labelled(known)

    def _name(self, answer: LargeAnswer) -> str | None:
        return None if answer.label is None else self._answer_names[answer.label]

    def _tell(self, audit: Audit) -> None:
        if audit.large_label is None:
            self._recorder.audited("lost")
            return
        agree = audit.large_label == audit.small_label
        self._watch.compared(audit.probability, agree=agree)
        self._recorder.audited("agree" if agree else "disagree")
