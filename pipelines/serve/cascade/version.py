"""One version of the cascade in memory: it judges inputs, escalates inputs that it does not keep, joins answers."""

from __future__ import annotations

import asyncio
import difflib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Literal

from kcm.bundle.answers import Answer, Failure, Input, Judgement, Unreadable
from kcm.bundle.frozen_models import large_names
from kcm.bundle.runtime import SmallSide, probe_of
from kcm.cascade.policy import ESCALATE_ALL
from kcm.encoders.precomputed import vector_fault
from kcm.errors import DataError
from kcm.explain.explanation import explain, variants
from kcm.explain.networks import heat_map
from kcm.inputs.content import Part, UnreadableError
from kcm.large import Item, LargeAnswer
from kcm.tracing import span
from pipelines.serve.cascade.models.escalation import Escalation, LargeUnavailable
from pipelines.serve.cascade.models.judging import Judging, TooManyPixelsError, Unjudged
from pipelines.serve.cascade.models.queues import QueueFullError
from pipelines.serve.cascade.novelty import NoveltyWatch
from pipelines.serve.config import ServeConfig
from pipelines.serve.errors import (
    InvalidInputError,
    LargeFailedError,
    SmallSideBusyError,
    SmallSideError,
)
from pipelines.serve.log.audit import Auditor
from pipelines.serve.log.entries import utc_now
from pipelines.serve.schemas import ExplainResponse, Timings

OnRefuted = Literal["escalate_all", "report"]
Standing = Literal["unknown", "holds", "refuted", "expired", "not certified on this runtime"]


class CertificateGuard:
    """Changes the policy of a small side permanently when its certificate is refuted, expired or of another runtime.

    With a log (`has_log`), the standing of a certificate is unknown until the log is read for the first time: it may
    hold an alarm. `void` says why the certificate does not hold in this service, see
    `kcm.bundle.frozen_models`; None if it holds. Unless the certificate holds, `escalate_all` keeps nothing, which
    loses nothing; `report` changes nothing.
    """

    def __init__(
        self,
        side: SmallSide,
        version: str,
        on_refuted: OnRefuted,
        now: Callable[[], datetime] = utc_now,
        void: str | None = None,
        *,
        has_log: bool = False,
    ) -> None:
        self._side, self._version, self._on_refuted, self._now = side, version, on_refuted, now
        self.void = void
        windows = [certificate.window for certificate in side.bundle.certificates.values() if certificate.window]
        self._expires_at = min((window.expires_at for window in windows), default=None)
        self.standing: Standing = "holds"
        if has_log and side.bundle.certificates:
            self._set("unknown")

    def act(self, refuted: bool | None = None) -> None:
        """Check the certificates; `refuted` is the log's finding, None if the log was not read."""
        if self.standing not in ("unknown", "holds"):
            return
        expired = self._expires_at is not None and self._now() >= self._expires_at
        if refuted or expired or self.void:
            standing: Standing = "refuted" if refuted else "expired" if expired else "not certified on this runtime"
            self._set(standing)
            because = f" ({self.void})" if standing == "not certified on this runtime" else ""
            logger.error("version %s is %s%s: %s", self._version, standing, because, self._on_refuted)
        elif refuted is not None and self.standing == "unknown":
            self._set("holds")

    def _set(self, standing: Standing) -> None:
        self.standing = standing
        policy = self._side.bundle.policy
        if standing != "holds" and self._on_refuted == "escalate_all":
            policy = policy.model_copy(update={"decision": ESCALATE_ALL, "task_decisions": {}})
        self._side.policy = policy

    def escalate_novel(self, farthest: float) -> None:
        """Escalate inputs beyond this distance to all known classes, permanently: new classes are in the traffic."""
        if farthest < self._side.farthest:
            self._side.farthest = farthest
            logger.warning(
                "version %s escalates inputs far from all known classes: new classes are in the traffic", self._version
            )


_FIELDS: Mapping[Part, str] = {
    "text": "text",
    "image": "image",
    "vector": "features",
}  # field names of a request's items

NO_CURVES = "The networks of this model are MLPs without edge functions to show."

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class AnsweredRequest:
    """What a version makes of a request; `large` has the large model's answers to the inputs that are not kept."""

    judgements: list[Judgement]
    large: list[LargeAnswer] | LargeUnavailable
    answers: list[Answer]
    timings: Timings


@dataclass(frozen=True)
class CascadeVersion:
    """One version: `answer` is the only way of a request through it.

    `judging` encodes inputs and has the small side judge them; versions with the same encoder share it. `guard` has
    acted if the certificate no longer holds. `auditor` is None if nothing is logged, `novelty` if the bundle holds
    no reference for it.
    """

    small_side: SmallSide
    judging: Judging
    escalation: Escalation
    config: ServeConfig
    name: str
    guard: CertificateGuard
    auditor: Auditor | None = None
    novelty: NoveltyWatch | None = None

    @cached_property
    def reads(self) -> frozenset[Part]:
        """The parts of an input that it reads."""
        return self.small_side.bundle.reads

    async def answer(self, inputs: Sequence[Input], request_id: str) -> AnsweredRequest:
        """Judge the inputs, escalate those that are not kept, and join the answers.

        Raises RequestError: InvalidInputError or SmallSideError before anything is escalated, others if the large model
        failed and the policy has no replacement.
        """
        self.guard.act()  # the certificate may have expired, whether or not the log can be read
        clock = time.perf_counter  # finer than the event loop's, which may count milliseconds
        started = clock()
        with span("judge", items=len(inputs), request_id=request_id):
            judgements = await self._judged(inputs, "inputs[{}]")
        judged_at = clock()
        with span("escalate", model_version=self.name):
            large: list[LargeAnswer] | LargeUnavailable = []
            if questions := self.small_side.questions(inputs, judgements):
                left_s = started + self.config.timeout_s - judged_at
                large = await self.escalation.ask(questions, min(self.config.large.timeout_s, left_s))
            if isinstance(large, LargeUnavailable):
                logger.warning("request %s: %s", request_id, large.reason)
            answers = self._answers(judgements, large)
        ended_at = clock()
        large_s = 0.0 if all(judgement.keeps for judgement in judgements) else ended_at - judged_at
        timings = Timings(judge_s=judged_at - started, large_s=large_s, total_s=ended_at - started)
        return AnsweredRequest(judgements, large, answers, timings)

    def _answers(self, judgements: Sequence[Judgement], large: list[LargeAnswer] | LargeUnavailable) -> list[Answer]:
        outcomes: Sequence[LargeAnswer | Failure] = []
        if not isinstance(large, LargeUnavailable):
            outcomes = large
        elif self.small_side.policy.on_large_failure == "error":
            raise large.error(large.reason)
        else:
            outcomes = [large] * sum(not judgement.keeps for judgement in judgements)
        answers: list[Answer] = []
        for answer in self.small_side.answers(judgements, outcomes):
            if isinstance(answer, Failure):
                raise LargeFailedError(f"the large model failed: {answer.reason}")
            answers.append(answer)
        return answers

    async def explain(self, item: Input, top: int, request_id: str) -> ExplainResponse:
        """Explain the decision on this input. The judgements of its variants queue with other items."""
        self._require_known([item], "input")
        varied = variants(item, self.config.limits.max_items - 1)
        judgements = await self._judged(varied, "input")
        return await asyncio.to_thread(self._explanation, item, judgements, top, request_id)

    def _explanation(self, item: Input, judgements: Sequence[Judgement], top: int, request_id: str) -> ExplainResponse:
        bundle = self.small_side.bundle
        explanation = explain(bundle, item, judgements, top)
        cells = heat_map(bundle, explanation.judgement.features_D)
        return ExplainResponse(
            model_version=self.name,
            request_id=request_id,
            label=explanation.label,
            judge_label=explanation.judge_label,
            judge_confidence=explanation.judgement.judge_confidence,
            answer_probability=explanation.answer_probability,
            escalated=not explanation.judgement.keeps,
            words=explanation.words,
            cells=None if cells is None else [[round(cell, 4) for cell in row] for row in cells.tolist()],
            reasons=explanation.reasons,
            no_curves=None if explanation.reasons else NO_CURVES,
            gate=explanation.gate,
            messages=bundle.large.messages(large_names(bundle), Item(item.id, item.content)),
        )

    async def judge_probe(self) -> None:
        """Judge a probe. Raises the errors of judging, and RuntimeError without a judgement."""
        (verdict,) = await self.judging.judge([Input(probe_of(self.small_side.bundle))], self.small_side)
        if not isinstance(verdict, Judgement):
            raise RuntimeError(verdict.reason)

    def _require_known(self, inputs: Sequence[Input], place: str) -> None:
        """Raise InvalidInputError for an input of a task, or with parts, that the model does not know."""
        bundle = self.small_side.bundle
        parts = " and ".join(sorted(_FIELDS[part] for part in self.reads))
        for index, item in enumerate(inputs):
            where = place.format(index)
            if item.task is not None and item.task not in bundle.task_names:
                nearest = difflib.get_close_matches(item.task, bundle.task_names, n=1, cutoff=0.0)
                hint = f", did you mean '{nearest[0]}'?" if nearest else ""
                raise InvalidInputError(f"{where}.task: there is no such task{hint}")
            if missing := item.content.lacks(self.reads):
                raise InvalidInputError(f"{where}.{_FIELDS[missing]}: this model reads {parts}, but it is missing")
            if needless := next(iter(item.content.parts - self.reads), None):
                raise InvalidInputError(f"{where}.{_FIELDS[needless]}: this model reads only {parts}")
            if "vector" in self.reads and (fault := vector_fault(item.content, bundle.collaborator.in_features)):
                raise InvalidInputError(f"{where}.features: {fault}")

    async def _judged(self, inputs: Sequence[Input], place: str) -> list[Judgement]:
        """One judgement per input; an error names an input by `place`, formatted with its position."""
        self._require_known(inputs, place)
        limit_s = min(self.config.judge_timeout_s, self.config.timeout_s)
        try:
            async with asyncio.timeout(limit_s):
                verdicts = await self.judging.judge(inputs, self.small_side)
        except TimeoutError:
            raise SmallSideError(f"not judged within {limit_s:g} s: the service is overloaded") from None
        except QueueFullError:
            raise SmallSideBusyError("too many items wait already") from None
        except UnreadableError as error:
            position, reason = next(iter(error.faults.items()))
            raise InvalidInputError(f"{place.format(position)}.image: {reason}") from None
        except TooManyPixelsError as error:
            raise InvalidInputError(f"{place.partition('[')[0]}: {error}") from None
        except DataError:
            logger.exception("the encoder gave no features")
            raise SmallSideError("the small side failed") from None
        for position, verdict in enumerate(verdicts):
            if isinstance(verdict, Unreadable):
                raise InvalidInputError(f"{place.format(position)}.image: {verdict.reason}")
        if unjudged := next((verdict for verdict in verdicts if isinstance(verdict, Unjudged)), None):
            logger.error("the small side of version %s returned no numbers: %s", self.name, unjudged.reason)
            raise SmallSideError("the small side failed")
        return [verdict for verdict in verdicts if isinstance(verdict, Judgement)]
