"""What the log holds of a request: escalated answers before it is answered, then its decisions and their audits."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from kcm.bundle.answers import Input, Judgement
from kcm.large import LargeAnswer
from kcm.tasks.units import unit_digest
from pipelines.serve.cascade.models.escalation import LargeUnavailable
from pipelines.serve.cascade.version import CascadeVersion
from pipelines.serve.log.database import LogUnavailableError
from pipelines.serve.log.entries import Decision, Escalated, Origin, Shadow
from pipelines.serve.log.writer import LogWriter
from pipelines.serve.metrics import ServeMetrics
from pipelines.serve.release import Challenger
from pipelines.serve.schemas import PredictResponse, Refusal

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class Judged:
    """The version that answers a request, its judgements, and the probability with which it is audited.

    `trial` is the challenger that was tried out at that moment, `shadow` what it would have done with each input.
    """

    version: CascadeVersion
    judgements: list[Judgement]
    audit_share: float
    trial: Challenger | None = None
    shadow: list[Shadow] | None = None


class Recorder:
    """Writes requests down where there is a `log`; what it does not take is counted, and fails no request."""

    def __init__(self, log: LogWriter | None, metrics: ServeMetrics) -> None:
        self._log, self._metrics = log, metrics

    @asynccontextmanager
    async def failures(self, found: Judged, origin: Origin) -> AsyncIterator[None]:
        """Log that the request fails in the block, if it is a challenger that answers it."""
        try:
            yield
        except Exception as error:
            trial = found.trial
            if trial and trial.version == found.version.name:
                self._metrics.challenger_failed(trial.version)
            if self._log and trial and trial.version == found.version.name:
                status = error.status if isinstance(error, Refusal) else 500
                try:
                    await self._log.add_failure(origin.request_id, trial.version, trial.stage, status)
                except LogUnavailableError:
                    self._metrics.unstored("failure")
            raise

    async def escalated(
        self, inputs: Sequence[Input], response: PredictResponse, large: Sequence[LargeAnswer] | LargeUnavailable
    ) -> None:
        places = [index for index, answer in enumerate(response.answers) if answer.route != "small"]
        if self._log is None or not places:
            return
        known = [None] * len(places) if isinstance(large, LargeUnavailable) else [each.probabilities for each in large]
        escalated = [
            Escalated(index, response.answers[index], inputs[index].task, probabilities_C)
            for index, probabilities_C in zip(places, known, strict=True)
        ]
        try:
            await self._log.add_escalated(response.request_id, response.model_version, escalated)
        except LogUnavailableError as error:
            self._metrics.unstored("escalated")
            logger.warning("request %s: its escalated answers are not stored: %s", response.request_id, error)

    def decisions(self, found: Judged, inputs: Sequence[Input], origin: Origin, response: PredictResponse) -> None:
        """Add every item to the log with the draw of its audit, and start the audits."""
        if (log := self._log) is None:
            return
        version, trial = found.version, found.trial
        auditor, bundle = version.auditor, version.small_side.bundle
        drawn = auditor.draw(response.answers, found.audit_share) if auditor else {}
        log.add_decisions(
            [
                Decision(
                    origin,
                    index,
                    response.model_version,
                    answer.route,
                    found.audit_share,
                    drawn.get(index),
                    small_label=bundle.answer_names[judgement.label],
                    gate_score=judgement.gate_score,
                    task=given.task,
                    unit=unit_digest(given.content, given.group),
                    large_identity=bundle.large_identity,
                    payload=log.payload(given.content, judgement.features_D, answer.route),
                    shadow=found.shadow[index] if found.shadow else None,
                    stage=trial.stage if trial else None,
                    seconds=response.timings.total_s if trial else None,
                )
                for index, (given, judgement, answer) in enumerate(
                    zip(inputs, found.judgements, response.answers, strict=True)
                )
            ]
        )
        if auditor:
            auditor.begin(origin.request_id, inputs, drawn)
