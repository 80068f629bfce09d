"""One replica's service behind the HTTP interface: it answers by the version in use, logs and counts."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

from markupsafe import Markup

from kcm.bundle.runtime import Answer, Input
from kcm.certify.certificate import certificates_json
from kcm.costs import prices
from kcm.report.page import model_section
from pipelines.serve.breaker import Breaker
from pipelines.serve.cascade.escalation import LargeUnavailable
from pipelines.serve.cascade.explanations import Explanation
from pipelines.serve.cascade.version import CascadeVersion
from pipelines.serve.config import ServeConfig
from pipelines.serve.log.database import LogUnavailableError
from pipelines.serve.log.decisions import ConflictError, Decision, Feedback, Origin, UnknownRequestError
from pipelines.serve.log.writer import LogWriter
from pipelines.serve.metrics import ServeMetrics
from pipelines.serve.release import Release, Releases
from pipelines.serve.schemas import FeedbackResponse, ModelCard, PredictResponse, Refusal, Timings, Traffic

PROBE_INTERVAL_S = 0.5

logger = logging.getLogger("ray.serve")


class CascadeService:
    """`load` makes a version ready to judge; `log` is None where nothing is stored.

    `exposition` gives all metrics in Prometheus' text format.
    """

    def __init__(
        self,
        load: Callable[[Release], Awaitable[CascadeVersion]],
        config: ServeConfig,
        breaker: Breaker,
        metrics: ServeMetrics,
        log: LogWriter | None,
        exposition: Callable[[], Awaitable[str]],
    ) -> None:
        self._load, self._config, self._breaker = load, config, breaker
        self._metrics, self._log, self._exposition = metrics, log, exposition
        self._releases: Releases[CascadeVersion] = Releases(self._load_and_try)
        self._traffic = Traffic()
        self._waiting_for: str | None = "the large model has not answered yet"
        self._started = self._explaining = False
        self._section: tuple[str, Markup] | None = None

    async def stage(self, release: Release) -> None:
        """Serve a release: at once if it is the first, else once it has been loaded and has answered."""
        await self._releases.stage(release)
        self._started = True

    async def become_ready(self) -> None:
        """Put a probe to the large model until it answers."""
        while unavailable := await self._releases.current.escalation.probe(self._config.load_timeout_s):
            self._waiting_for = unavailable.reason
            await asyncio.sleep(PROBE_INTERVAL_S)
        self._waiting_for = None

    async def settled(self) -> None:
        """Wait until no release is being loaded and no audit is under way."""
        await self._releases.settled()
        if auditor := self._releases.current.auditor:
            await auditor.settled()

    async def predict(self, inputs: Sequence[Input], origin: Origin) -> PredictResponse:
        """Answer a request by one version, or raise Refusal. Escalated answers are in the log before it returns."""
        version = self._releases.current
        clock = time.perf_counter  # finer than the event loop's, which may count milliseconds
        with _counting_errors(self._metrics.refused):
            started = clock()
            judgements = await version.judge(inputs)
            judged = clock()
            large = await version.escalate(inputs, judgements, started + self._config.timeout_s - judged)
            ended = clock()
            if isinstance(large, LargeUnavailable):
                logger.warning("request %s: %s", origin.request_id, large.reason)
            response = PredictResponse(
                model_version=version.name,
                request_id=origin.request_id,
                answers=version.answers(judgements, large),
                timings=Timings(
                    judge_s=judged - started,
                    large_s=0.0 if all(judgement.keeps for judgement in judgements) else ended - judged,
                    total_s=ended - started,
                ),
            )
        await self._store_escalated(inputs, response)
        self._traffic.count(response.answers)
        self._store_decisions(version, inputs, origin, response)
        self._metrics.answered(response)
        self._metrics.set_load(version.batcher.num_waiting, self._traffic.call_rate, self._breaker.state)
        return response

    async def explain(self, given: Input, top: int, request_id: str) -> Explanation:
        """Explain one decision, or raise Refusal; one at a time, since each costs as much as some dozen predictions."""
        with _counting_errors(self._metrics.explained):
            if self._explaining:
                raise Refusal(429, "another decision is being explained", self._config.retry_after_s)
            self._explaining = True
            try:
                found = await self._releases.current.explain(given, top, request_id)
            finally:
                self._explaining = False
        self._metrics.explained(200)
        return found

    async def feedback(self, request_id: str, caller: str | None, labels: Sequence[Feedback]) -> FeedbackResponse:
        """Store true labels, or raise Refusal.

        404 for what was not answered for this caller, 409 where there are other labels, 503 while the log takes none.
        """
        if self._log is None:
            raise Refusal(404, "feedback is not kept here: serve.feedback.url is not set")
        known = self._releases.current.small_side.bundle.label_names
        for index, label in enumerate(labels):
            if label.label not in known:
                raise Refusal(422, f"labels[{index}].label: the model has no such label; see /v1/model")
        try:
            await self._log.add_feedback(request_id, caller, labels)
        except UnknownRequestError as error:
            raise Refusal(404, f"request {request_id}: {error}") from None
        except ConflictError as error:
            raise Refusal(409, f"request {request_id}: {error}") from None
        except LogUnavailableError:
            self._metrics.unstored("feedback")
            retry_after_s = self._config.retry_after_s
            raise Refusal(503, "the feedback log is not available; nothing was stored", retry_after_s) from None
        if auditor := self._releases.current.auditor:
            auditor.monitor.schedule()
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

    def report(self) -> Markup:
        """The model card in words and figures, as a fragment of a page; drawn once for a version."""
        bundle = self._releases.current.small_side.bundle
        if self._section and self._section[0] == bundle.digest:
            return self._section[1]
        section = model_section(
            "kcm" if bundle.collaborator.kind == "kan" else "mcm",
            bundle.metrics,
            certificates_json(bundle.certificates) if None in bundle.certificates else {},
            bundle.policy.model_dump(mode="json"),
            prices(self._config.costs) if self._config.costs else None,
        )
        self._section = bundle.digest, section
        return section

    def waiting_for(self) -> str | None:
        """Why requests cannot be answered yet; None once the large model has answered a probe."""
        return self._waiting_for

    async def metrics(self) -> str:
        """All metrics, in Prometheus' text format."""
        return await self._exposition()

    def failed(self) -> None:
        """Count a request that ended in an unexpected error."""
        self._metrics.failed()

    async def _load_and_try(self, release: Release) -> CascadeVersion:
        """A version that has judged a probe; one that takes over must have an answer of its large model, too."""
        version = await self._load(release)
        await version.judge_probe()
        if self._started and (unavailable := await version.escalation.probe(self._config.load_timeout_s)):
            raise RuntimeError(unavailable.reason)
        return version

    async def _store_escalated(self, inputs: Sequence[Input], response: PredictResponse) -> None:
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
            self._metrics.unstored("escalated")
            logger.warning("request %s: its escalated answers are not stored: %s", response.request_id, error)

    def _store_decisions(
        self, version: CascadeVersion, inputs: Sequence[Input], origin: Origin, response: PredictResponse
    ) -> None:
        """Add every item to the log with the draw of its audit, and start the audits."""
        if self._log is None:
            return
        auditor = version.auditor
        share, drawn = (auditor.share, auditor.draw(response.answers)) if auditor else (0.0, {})
        self._log.add_decisions(
            [
                Decision(origin, index, response.model_version, answer.route, share, drawn.get(index))
                for index, answer in enumerate(response.answers)
            ]
        )
        if auditor:
            auditor.begin(origin.request_id, inputs, drawn)


@contextmanager
def _counting_errors(count: Callable[[int], None]) -> Iterator[None]:
    """Call `count` with the HTTP status of what the block raises, and let it pass."""
    try:
        yield
    except Refusal as refusal:
        count(refusal.status)
        raise
    except Exception:
        count(500)
        raise
