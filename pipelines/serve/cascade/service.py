"""One replica's service behind the HTTP interface: it answers with the version in use, logs and counts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from kcm.bundle.answers import Input
from kcm.cascade.thresholds import FAR
from kcm.tasks.units import unit_digest
from pipelines.registry.replicas import LOAD_TIMEOUT_S
from pipelines.serve.breaker import Breaker
from pipelines.serve.cascade.cards import Cards
from pipelines.serve.cascade.models.escalation import LargeUnavailable
from pipelines.serve.cascade.version import AnsweredRequest, CascadeVersion
from pipelines.serve.config import ServeConfig
from pipelines.serve.errors import (
    BusyError,
    InvalidInputError,
    LogAwayError,
    NotStoredError,
)
from pipelines.serve.log.database import LogUnavailableError
from pipelines.serve.log.entries import Feedback, LoggedDecision, Origin, Payload
from pipelines.serve.log.writer import LogWriter
from pipelines.serve.metrics import ServeMetrics
from pipelines.serve.release import Release, Releases
from pipelines.serve.schemas import ExplainResponse, FeedbackResponse, PredictResponse, ReplicaTraffic

PROBE_INTERVAL_S = 0.5

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class ServingState:
    """The version that a replica serves, the version that it loads, and the reason for each version in `refused`."""

    version: str
    loading: bool
    refused: dict[str, str]


class CascadeService:
    """`load` makes a version ready to judge; it shares models with a loaded version if it can.

    `log` is None if nothing is stored. `status_of` gives the status under which an error is counted.
    """

    def __init__(
        self,
        load: Callable[[Release, CascadeVersion | None], Awaitable[CascadeVersion]],
        config: ServeConfig,
        breaker: Breaker,
        metrics: ServeMetrics,
        log: LogWriter | None,
        status_of: Callable[[Exception], int],
    ) -> None:
        self._load, self._config, self._breaker, self._status_of = load, config, breaker, status_of
        self.metrics, self._log = metrics, log
        self._releases: Releases[CascadeVersion] = Releases(self._load_and_try)
        self._traffic = ReplicaTraffic()
        self.cards = Cards(self._releases, config, breaker, self._traffic)
        self._waiting_for: str | None = "the large model has not answered yet"
        self._explaining = False

    async def stage(self, release: Release) -> None:
        """Serve a release: immediately if it is the first or in memory, otherwise after it has loaded and answered."""
        await self._releases.stage(release)

    def state(self) -> ServingState:
        """The served and the refused versions, for the process that promotes."""
        releases = self._releases
        reasons = {refused.version: refused.reason} if (refused := releases.refused) else {}
        return ServingState(releases.release.version, releases.loading is not None, reasons)

    async def become_ready(self) -> None:
        """Send a probe to the large model until it answers."""
        while unavailable := await self._releases.current.escalation.probe(LOAD_TIMEOUT_S):
            self._waiting_for = unavailable.reason
            await asyncio.sleep(PROBE_INTERVAL_S)
        self._waiting_for = None

    async def settled(self) -> None:
        """Wait until no release is being loaded and no audit is under way."""
        await self._releases.settled()
        if auditor := self._releases.current.auditor:
            await auditor.settled()

    async def predict(self, inputs: Sequence[Input], origin: Origin) -> PredictResponse:
        """Answer a request with one version, or raise RequestError."""
        try:
            version = self._releases.current
            answered = await version.answer(inputs, origin.request_id)
        except Exception as error:
            self.metrics.refused(self._status_of(error))
            raise
        response = PredictResponse(
            model_version=version.name,
            request_id=origin.request_id,
            answers=answered.answers,
            timings=answered.timings,
        )
        self._traffic.count(response.answers)
        self._record(version, inputs, origin, answered)
        if version.novelty and version.guard.standing == "holds":
            version.novelty.add(answered.judgements)
        self.metrics.answered(response)
        self.metrics.set_waiting(version.judging.num_waiting)
        if not all(judgement.keeps for judgement in answered.judgements):
            self.metrics.set_breaker(self._breaker.state)
        return response

    async def explain(self, item: Input, top: int, request_id: str) -> ExplainResponse:
        """Explain one decision, one at a time: it costs as much as dozens of predictions. May raise RequestError."""
        if self._explaining:
            raise BusyError("another decision is being explained")
        self._explaining = True
        try:
            return await self._releases.current.explain(item, top, request_id)
        finally:
            self._explaining = False

    async def feedback(self, request_id: str, caller: str | None, labels: Sequence[Feedback]) -> FeedbackResponse:
        """Store true labels in the log before they are acknowledged.

        Raises NotStoredError without a log, LogAwayError while it is unavailable, RejectedError for labels that it
        refuses, InvalidInputError for a label that the served version does not know, unless new labels are kept.
        """
        if self._log is None:
            raise NotStoredError("labels are not kept here: serve.feedback.url is not set")
        version = self._releases.current
        known_labels = set(version.small_side.bundle.label_names)
        unknown = [index for index, label in enumerate(labels) if label.label not in known_labels]
        if unknown and self._config.feedback.new_labels == "refuse":
            raise InvalidInputError(f"labels[{unknown[0]}].label: the model has no such label; see /v1/model")
        labels = [replace(label, new=True) if index in unknown else label for index, label in enumerate(labels)]
        try:
            await self._log.add_feedback(request_id, caller, labels)
        except LogUnavailableError:
            self.metrics.unstored("feedback")
            raise LogAwayError("the log is unavailable: the labels may not be stored") from None
        if version.auditor:
            version.auditor.monitor.schedule()
        return FeedbackResponse(request_id=request_id, stored=len(labels))

    def waiting_for(self) -> str | None:
        """Why requests cannot be answered yet; None once the large model has answered a probe."""
        return self._waiting_for

    def degraded(self) -> str | None:
        """The part that does not work while the service still answers; None if all parts work."""
        return "log" if self._log and not self._log.available else None

    async def _load_and_try(self, release: Release, champion: CascadeVersion | None) -> CascadeVersion:
        """A version that has judged a probe; if it takes over, its large model must also have answered."""
        version = await self._load(release, champion)
        await version.judge_probe()
        if self._releases.has_served and (unavailable := await version.escalation.probe(LOAD_TIMEOUT_S)):
            raise RuntimeError(unavailable.reason)
        return version

    def _record(
        self,
        version: CascadeVersion,
        inputs: Sequence[Input],
        origin: Origin,
        answered: AnsweredRequest,
    ) -> None:
        """Add every item to the log, if there is one, with the draw of its audit, and start the audits."""
        if (log := self._log) is None:
            return
        auditor, bundle, answers = version.auditor, version.small_side.bundle, answered.answers
        stored_inputs = self._config.feedback.store_payloads
        share = self._config.audit.share
        drawn_labels = auditor.draw(answers, share) if auditor and share else {}
        large_answers = iter([] if isinstance(answered.large, LargeUnavailable) else answered.large)
        decisions = []
        for index, (item, judgement, answer) in enumerate(zip(inputs, answered.judgements, answers, strict=True)):
            large = None if judgement.keeps else next(large_answers, None)
            is_large = answer.route == "large"
            decisions.append(
                LoggedDecision(
                    origin,
                    index,
                    version.name,
                    answer.route,
                    share,
                    drawn=index in drawn_labels,
                    small_label=bundle.answer_names[judgement.label],
                    gate_score=FAR if judgement.far else judgement.gate_score,  # as `Gate.score` has it
                    large_label=answer.label if is_large else None,
                    large_probabilities_C=large.probabilities if large and is_large else None,
                    task=item.task,
                    unit=unit_digest(item.content, item.group),
                    large_identity=bundle.large_identity,
                    payload=Payload.of(item.content, judgement.features_D, answer.route, stored_inputs),
                )
            )
        log.add_decisions(decisions)
        if auditor:
            auditor.monitor.schedule()
        if auditor and drawn_labels:
            auditor.begin(origin.request_id, inputs, drawn_labels)
