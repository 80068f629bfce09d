"""One replica's service behind the HTTP interface: it answers by the version in use, logs and counts."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from kcm.bundle.answers import Input, Judgement
from kcm.large import LargeAnswer
from kcm.spans import span
from kcm.tasks.units import unit_digest
from pipelines.serve.breaker import Breaker
from pipelines.serve.cascade.cards import Cards
from pipelines.serve.cascade.labelling import Labelling
from pipelines.serve.cascade.models.escalation import LargeUnavailable
from pipelines.serve.cascade.models.judging import Unjudged
from pipelines.serve.cascade.version import CascadeVersion
from pipelines.serve.config import RETRY_AFTER_S, ServeConfig
from pipelines.serve.log.entries import LoggedDecision, Origin
from pipelines.serve.log.writer import LogWriter
from pipelines.serve.metrics import ServeMetrics
from pipelines.serve.release import ChallengerRelease, Release, Releases, Served
from pipelines.serve.schemas import ExplainResponse, PredictResponse, Refusal, ReplicaTraffic, Timings

PROBE_INTERVAL_S = 0.5
AUDITED_BELOW = 0.25  # of the callers: as long as a canary answers fewer, all that it keeps is audited

logger = logging.getLogger("ray.serve")


class Unlabelled(Exception):
    """The large model's reply to a relayed request has no label: its caller gets it, and there is no decision."""


class Relay(Protocol):
    """Asks the large model by the caller's own request, in place of kcm's question."""

    async def ask(self, labels: Sequence[str]) -> list[LargeAnswer] | LargeUnavailable:
        """The answer to the one input, a position among `labels`; or why there is none. Raises Unlabelled, Refusal."""


@dataclass(frozen=True)
class ServingState:
    """The version that a replica serves, whether it loads another, and why it serves none of `refused`."""

    version: str
    loading: bool
    refused: dict[str, str]


@dataclass(frozen=True)
class Judged:
    """The version that answers a request, its judgements, and the probability with which it is audited.

    `trial` is the challenger's, where that answers.
    """

    version: CascadeVersion
    judgements: list[Judgement]
    audit_share: float
    trial: ChallengerRelease | None = None


class CascadeService:
    """`load` makes a version ready to judge, sharing what it can with one that is there already.

    `log` is None where nothing is stored.
    """

    def __init__(
        self,
        load: Callable[[Release, CascadeVersion | None], Awaitable[CascadeVersion]],
        config: ServeConfig,
        breaker: Breaker,
        metrics: ServeMetrics,
        log: LogWriter | None,
    ) -> None:
        self._load, self._config, self._breaker = load, config, breaker
        self.metrics, self._log = metrics, log
        self._releases: Releases[CascadeVersion] = Releases(self._load_and_try, CascadeVersion.require_beside)
        self.labelling = Labelling(self._releases, config, log, metrics)
        self._traffic = ReplicaTraffic()
        self.cards = Cards(self._releases, config, breaker, log, self._traffic)
        self._waiting_for: str | None = "the large model has not answered yet"
        self._started = self._explaining = False

    async def stage(self, release: Release) -> None:
        """Serve a release: at once if it is the first or in memory, else once it has been loaded and has answered."""
        if (before := self._trial()) and (release.challenger is None or release.challenger.version != before.version):
            self.metrics.set_challenger(before.version, 0.0)
        await self._releases.stage(release)
        self._started = True
        if trial := release.challenger:
            self.metrics.set_challenger(trial.version, trial.share)

    def drop(self, version: str, reason: str) -> None:
        """Go on without the challenger of this version."""
        self._releases.drop(version, reason)
        self.metrics.set_challenger(version, 0.0)

    def state(self) -> ServingState:
        """What is served and what was refused, for whoever promotes."""
        releases = self._releases
        refused = {each.version: each.reason for each in (releases.refused, releases.dropped) if each}
        return ServingState(releases.release.version, releases.loading is not None, refused)

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

    async def predict(self, inputs: Sequence[Input], origin: Origin, relay: Relay | None = None) -> PredictResponse:
        """Answer a request by one version, or raise Refusal. `relay` asks the large model about the one input."""
        served = self._releases.served
        clock = time.perf_counter  # finer than the event loop's, which may count milliseconds
        with _counting_errors(self.metrics.refused):
            started = clock()
            with span("judge", items=len(inputs), request_id=origin.request_id):
                found = await self._judged(served, inputs, origin)
            judged = clock()
            try:
                left_s = started + self._config.timeout_s - judged
                with span("escalate", model_version=found.version.name):
                    if relay and not found.judgements[0].keeps:
                        large = await relay.ask(found.version.small_side.bundle.answer_names)
                    else:
                        large = await found.version.escalate(inputs, found.judgements, left_s)
                ended = clock()
                if isinstance(large, LargeUnavailable):
                    logger.warning("request %s: %s", origin.request_id, large.reason)
                response = PredictResponse(
                    model_version=found.version.name,
                    request_id=origin.request_id,
                    answers=found.version.answers(found.judgements, large),
                    timings=Timings(
                        judge_s=judged - started,
                        large_s=0.0 if all(judgement.keeps for judgement in found.judgements) else ended - judged,
                        total_s=ended - started,
                    ),
                )
            except Unlabelled:
                raise
            except Exception as error:
                self._record_failure(found, origin, error)
                raise
        self._traffic.count(response.answers)
        self._record(found, inputs, origin, response, large)
        if found.version.drift and (found.version.guard is None or found.version.guard.standing == "holds"):
            found.version.drift.add(found.judgements)
        self.metrics.answered(response)
        self.metrics.set_load(found.version.judging.num_waiting, self._traffic.call_rate, self._breaker.state)
        return response

    async def explain(self, given: Input, top: int, request_id: str) -> ExplainResponse:
        """Explain one decision, or raise Refusal; one at a time, since each costs as much as some dozen predictions."""
        with _counting_errors(self.metrics.explained):
            if self._explaining:
                raise Refusal(429, "another decision is being explained", RETRY_AFTER_S)
            self._explaining = True
            try:
                found = await self._releases.current.explain(given, top, request_id)
            finally:
                self._explaining = False
        self.metrics.explained(200)
        return found

    def _trial(self) -> ChallengerRelease | None:
        return self._releases.release.challenger if self._started else None

    def waiting_for(self) -> str | None:
        """Why requests cannot be answered yet; None once the large model has answered a probe."""
        return self._waiting_for

    def degraded(self) -> str | None:
        """What does not work while answers go on; None where all does."""
        return "log" if self._log and not self._log.available else None

    async def _load_and_try(self, release: Release, beside: CascadeVersion | None) -> CascadeVersion:
        """A version that has judged a probe; one that takes over must have an answer of its large model, too."""
        version = await self._load(release, beside)
        await version.judge_probe()
        if self._started and (unavailable := await version.escalation.probe(self._config.load_timeout_s)):
            raise RuntimeError(unavailable.reason)
        return version

    def _record_failure(self, found: Judged, origin: Origin, error: Exception) -> None:
        """Log and count that a request failed, if it is a challenger that answers it."""
        if trial := found.trial:
            self.metrics.challenger_failed(trial.version)
            if self._log:
                status = error.status if isinstance(error, Refusal) else 500
                self._log.add_failure(origin.request_id, trial.version, trial.stage, status)

    def _record(
        self,
        found: Judged,
        inputs: Sequence[Input],
        origin: Origin,
        response: PredictResponse,
        large: Sequence[LargeAnswer] | LargeUnavailable,
    ) -> None:
        """Add every item to the log, where there is one, with the draw of its audit, and start the audits.

        `large` are the large model's answers to the items that were not kept, in their order.
        """
        if (log := self._log) is None:
            return
        auditor, bundle = found.version.auditor, found.version.small_side.bundle
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
                    stage=found.trial.stage if found.trial else None,
                    seconds=response.timings.total_s,
                )
                for index, (given, judgement, answer) in enumerate(
                    zip(inputs, found.judgements, response.answers, strict=True)
                )
            ]
        )
        if auditor:
            auditor.begin(origin.request_id, inputs, drawn)

    async def _judged(self, served: Served[CascadeVersion], inputs: Sequence[Input], origin: Origin) -> Judged:
        """Who answers, and how; a challenger that gives no numbers is dropped, and the champion answers."""
        share, trial, challenger = self._config.audit.share, served.release.challenger, served.challenger
        if challenger and trial and trial.answers(origin.caller, origin.request_id):
            judgements = await challenger.judge_or_fail(inputs)
            if not isinstance(judgements, Unjudged):
                return Judged(challenger, judgements, 1.0 if trial.share < AUDITED_BELOW else share, trial)
            self._releases.drop(challenger.name, f"it gave no numbers: {judgements.reason}")
        return Judged(served.champion, await served.champion.judge(inputs), share)


@contextmanager
def _counting_errors(count: Callable[[int], None]) -> Iterator[None]:
    """Call `count` with the HTTP status of what the block raises, and let it pass."""
    try:
        yield
    except Unlabelled:
        raise
    except Refusal as refusal:
        count(refusal.status)
        raise
    except Exception:
        count(500)
        raise
