"""What the log holds of a request: escalated answers before it is answered, then its decisions and their audits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from kcm.bundle.answers import Input, Judgement
from kcm.large import LargeAnswer
from kcm.tasks.units import unit_digest
from pipelines.serve.cascade.models.escalation import LargeUnavailable
from pipelines.serve.cascade.version import CascadeVersion
from pipelines.serve.log.entries import LoggedDecision, Origin, Shadow
from pipelines.serve.log.writer import LogWriter
from pipelines.serve.metrics import ServeMetrics
from pipelines.serve.release import ChallengerRelease
from pipelines.serve.schemas import PredictResponse, Refusal


@dataclass(frozen=True)
class Judged:
    """The version that answers a request, its judgements, and the probability with which it is audited.

    `trial` is the challenger that was tried out at that moment, `shadow` what it would have done with each input.
    """

    version: CascadeVersion
    judgements: list[Judgement]
    audit_share: float
    trial: ChallengerRelease | None = None
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
                if self._log:
                    status = error.status if isinstance(error, Refusal) else 500
                    self._log.add_failure(origin.request_id, trial.version, trial.stage, status)
            raise

    def decisions(
        self,
        found: Judged,
        inputs: Sequence[Input],
        origin: Origin,
        response: PredictResponse,
        large: Sequence[LargeAnswer] | LargeUnavailable,
    ) -> None:
        """Add every item to the log with the draw of its audit, and start the audits.

        `large` are the large model's answers to the items that were not kept, in their order.
        """
        if (log := self._log) is None:
            return
        version, trial = found.version, found.trial
        auditor, bundle = version.auditor, version.small_side.bundle
        drawn = auditor.draw(response.answers, found.audit_share) if auditor else {}
        escalated = [index for index, answer in enumerate(response.answers) if answer.route != "small"]
        given_answers = [] if isinstance(large, LargeUnavailable) else large
        probabilities = {index: answer.probabilities for index, answer in zip(escalated, given_answers, strict=False)}
        log.add_decisions(
            [
                LoggedDecision(
                    origin,
                    index,
                    response.model_version,
                    answer.route,
                    found.audit_share,
                    drawn=index in drawn,
                    small_label=bundle.answer_names[judgement.label],
                    gate_score=judgement.gate_score,
                    large_label=answer.label if answer.route == "large" else None,
                    large_probabilities_C=probabilities.get(index) if answer.route == "large" else None,
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
