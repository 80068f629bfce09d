"""What stands behind the HTTP interface: the version in use, the log, and what is counted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from kcm.bundle.runtime import Answer, Input
from kcm.certify.certificate import certificates_json
from kcm.report.drawing.markup import Html
from kcm.report.model_section import model_section
from pipelines.serve.cascade.breaker import Breaker, State
from pipelines.serve.cascade.explanations import Explanation
from pipelines.serve.cascade.service import CascadeService
from pipelines.serve.deploy.config import ServeConfig
from pipelines.serve.deploy.release import Release, Releases
from pipelines.serve.http.errors import Refusal
from pipelines.serve.http.schemas import FeedbackResponse, ModelCard, PredictResponse, Traffic
from pipelines.serve.log.database import LogUnavailableError
from pipelines.serve.log.decisions import ConflictError, Decision, Feedback, Origin, UnknownRequestError
from pipelines.serve.log.writer import LogWriter

PROBE_INTERVAL_S = 0.5

logger = logging.getLogger("ray.serve")

Load = Callable[[Release], Awaitable[CascadeService]]


class Recorder(Protocol):
    """What counts; `pipelines.serve.deploy.metrics.ServeMetrics` is one."""

    def answered(self, response: PredictResponse) -> None:
        """Count an answered request."""

    def refused(self, status: int) -> None:
        """Count a refused prediction."""

    def explained(self, status: int) -> None:
        """Count a decision that was to be explained."""

    def unstored(self, kind: str) -> None:
        """Count a write that the log did not take."""

    def failed(self) -> None:
        """Count a request that ended in an error which nobody foresaw."""

    def observe(self, num_waiting: int, call_rate: float | None, breaker: State) -> None:
        """Tell how things stand."""


class Front:
    """One replica's service. `load` makes a version ready to judge; `log` is None where nothing is to be kept."""

    def __init__(
        self,
        load: Load,
        config: ServeConfig,
        breaker: Breaker,
        recorder: Recorder,
        log: LogWriter | None,
        exposition: Callable[[], Awaitable[str]],
    ) -> None:
        self._load, self._config, self._breaker = load, config, breaker
        self._recorder, self._log, self._exposition = recorder, log, exposition
        self._releases: Releases[CascadeService] = Releases(self._load_and_try)
        self._traffic = Traffic()
        self._waiting_for: str | None = "the large model has not answered yet"
        self._started = self._explaining = False

    async def offer(self, release: Release) -> None:
        """Serve a release: at once where it is the first, else once it has been loaded and has answered."""
        await self._releases.offer(release)
        self._started = True

    async def become_ready(self) -> None:
        """Put a probe to the large model until it answers."""
        while unavailable := await self._releases.current.escalation.probe(self._config.load_timeout_s):
            self._waiting_for = unavailable.reason
            await asyncio.sleep(PROBE_INTERVAL_S)
        self._waiting_for = None

    async def predict(self, inputs: Sequence[Input], origin: Origin) -> PredictResponse:
        """Answer a request by one version, or raise Refusal. Escalated answers are in the log before it returns."""
        service = self._releases.current
        try:
            response = await service.predict(inputs, origin.request_id)
        except Refusal as refusal:
            self._recorder.refused(refusal.status)
            raise
        except Exception:
            self._recorder.refused(500)
            raise
        await self._keep_escalated(inputs, response)
        self._traffic.count(response.answers)
        self._keep_decisions(service, inputs, origin, response)
        self._recorder.answered(response)
        self._recorder.observe(service.judge.num_waiting, self._traffic.call_rate, self._breaker.state)
        return response

    async def explain(self, given: Input, top: int, request_id: str) -> Explanation:
        """Explain one decision, or raise Refusal; one at a time, since each costs as much as some dozen predictions."""
        try:
            found = await self._explain_alone(given, top, request_id)
        except Refusal as refusal:
            self._recorder.explained(refusal.status)
            raise
        except Exception:
            self._recorder.explained(500)
            raise
        self._recorder.explained(200)
        return found

    async def feedback(self, request_id: str, caller: str | None, labels: Sequence[Feedback]) -> FeedbackResponse:
        """Store true labels, or raise Refusal.

        404 for what was not answered for this caller, 409 where there are other labels, 503 while the log takes none.
        """
        if self._log is None:
            raise Refusal(404, "feedback is not kept here: serve.feedback.url is not set")
        self._require_known(labels)
        try:
            await self._log.add_feedback(request_id, caller, labels)
        except UnknownRequestError as error:
            raise Refusal(404, f"request {request_id}: {error}") from None
        except ConflictError as error:
            raise Refusal(409, f"request {request_id}: {error}") from None
        except LogUnavailableError:
            self._recorder.unstored("feedback")
            retry_after_s = self._config.retry_after_s
            raise Refusal(503, "the feedback log is not available; nothing was stored", retry_after_s) from None
        if auditor := self._releases.current.auditor:
            auditor.monitor.stir()
        return FeedbackResponse(request_id=request_id, stored=len(labels))

    def card(self) -> ModelCard:
        """The model that is being served."""
        bundle = self._releases.current.small_side.bundle
        certificates = dict(bundle.certificates)
        return ModelCard(
            model_version=self._releases.release.version,
            digest=bundle.digest,
            labels=list(bundle.label_names),
            tasks=list(bundle.task_names),
            reads=sorted(bundle.reads),
            encoder=bundle.encoder.name,
            large=bundle.large.adapter,
            policy=bundle.policy,
            certificate=certificates.pop(None, None),
            task_certificates={task: certificate for task, certificate in certificates.items() if task is not None},
            lineage=bundle.lineage.model_dump(mode="json"),
            traffic=self._traffic,
            call_rate=self._traffic.call_rate,
            cost_saved=self._traffic.cost_saved,
            breaker=self._breaker.state,
            loading=self._releases.loading,
            refused=self._releases.refused,
        )

    def report(self) -> Html:
        """The version in use in words and figures, as a fragment of a page."""
        bundle = self._releases.current.small_side.bundle
        return model_section(
            "kcm" if bundle.collaborator.kind == "kan" else "mcm",
            bundle.metrics,
            certificates_json(bundle.certificates) if None in bundle.certificates else {},
            bundle.policy.model_dump(mode="json"),
        )

    def waiting_for(self) -> str | None:
        """Why requests cannot be answered yet; None once the probe has gone the whole way."""
        return self._waiting_for

    async def metrics(self) -> str:
        """Everything that is counted, in Prometheus' text format."""
        return await self._exposition()

    def failed(self) -> None:
        """Count a request that ended in an error which nobody foresaw."""
        self._recorder.failed()

    async def _load_and_try(self, release: Release) -> CascadeService:
        """A release that has judged; one that takes over must have been answered by its large model, too."""
        service = await self._load(release)
        await service.judge_probe()
        if self._started and (unavailable := await service.escalation.probe(self._config.load_timeout_s)):
            raise RuntimeError(unavailable.reason)
        return service

    async def _explain_alone(self, given: Input, top: int, request_id: str) -> Explanation:
        if self._explaining:
            raise Refusal(429, "another decision is being explained", self._config.retry_after_s)
        self._explaining = True
        try:
            return await self._releases.current.explain(given, top, request_id)
        finally:
            self._explaining = False

    async def _keep_escalated(self, inputs: Sequence[Input], response: PredictResponse) -> None:
        escalated: list[tuple[int, Input, Answer]] = [
            (index, given, answer)
            for index, (given, answer) in enumerate(zip(inputs, response.answers, strict=True))
            if answer.route != "small"
        ]
        if self._log is None or not escalated:
            return
        try:
            await self._log.add_escalated(response.request_id, response.model_version, escalated)
        except LogUnavailableError as error:
            self._recorder.unstored("escalated")
            logger.warning("request %s: its escalated answers are not stored: %s", response.request_id, error)

    def _keep_decisions(
        self, service: CascadeService, inputs: Sequence[Input], origin: Origin, response: PredictResponse
    ) -> None:
        """Have every item in the log soon, with what is drawn of them, and audit that."""
        if self._log is None:
            return
        auditor = service.auditor
        share, drawn = (auditor.share, auditor.draw(response.answers)) if auditor else (0.0, {})
        self._log.add_decisions(
            [
                Decision(origin, index, response.model_version, answer.route, share, drawn.get(index))
                for index, answer in enumerate(response.answers)
            ]
        )
        if auditor:
            auditor.begin(origin.request_id, inputs, drawn)

    def _require_known(self, labels: Sequence[Feedback]) -> None:
        known = self._releases.current.small_side.bundle.label_names
        for index, label in enumerate(labels):
            if label.label not in known:
                raise Refusal(422, f"labels[{index}].label: the model has no such label; see /v1/model")
