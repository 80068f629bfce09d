"""What becomes of one request: judged, escalated where need be, answered or refused, within its time."""

from __future__ import annotations

import asyncio
import difflib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from kcm.bundle.runtime import Answer, Failure, Input, Judgement, SmallSide, Unreadable
from kcm.errors import DataError
from kcm.explain.explanation import variants
from kcm.inputs.content import PROBE, UnreadableError
from kcm.large import LargeAnswer
from pipelines.serve.cascade.batcher import Batcher, QueueFullError
from pipelines.serve.cascade.encoder import EncoderFailedError
from pipelines.serve.cascade.escalation import Escalation, LargeUnavailable
from pipelines.serve.cascade.explanations import Explanation, explanation
from pipelines.serve.cascade.pictures import PicturesFirst, TooManyPixelsError
from pipelines.serve.deploy.config import ServeConfig
from pipelines.serve.http.errors import Refusal
from pipelines.serve.http.schemas import PredictResponse, Timings
from pipelines.serve.log.audit import Auditor

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class CascadeService:
    """One version of the cascade; `judge` batches judgements of the small side, `auditor` is None without audits."""

    small_side: SmallSide
    judge: PicturesFirst | Batcher[Input, Judgement | Unreadable]
    escalation: Escalation
    config: ServeConfig
    version: str
    auditor: Auditor | None = None

    async def predict(self, inputs: Sequence[Input], request_id: str) -> PredictResponse:
        """Answer all inputs by this version, or raise Refusal."""
        self._require_known_tasks(inputs)
        self._require_what_is_read(inputs)
        clock = time.perf_counter  # finer than the event loop's, which may count milliseconds
        started = clock()
        judgements = await self._judgements(inputs)
        judged = clock()
        left_s = started + self.config.timeout_s - judged
        questions = self.small_side.questions(inputs, judgements)
        large = await self.escalation.ask(questions, min(self.config.large.timeout_s, left_s))
        if isinstance(large, LargeUnavailable):
            logger.warning("request %s: %s", request_id, large.reason)
        ended = clock()
        return PredictResponse(
            model_version=self.version,
            request_id=request_id,
            answers=self._answers(judgements, large),
            timings=Timings(
                judge_s=judged - started,
                large_s=0.0 if all(judgement.keeps for judgement in judgements) else ended - judged,
                total_s=ended - started,
            ),
        )

    async def explain(self, given: Input, top: int, request_id: str) -> Explanation:
        """Say why this input is decided as it is, or raise Refusal. Its variants wait in line with other items."""
        self._require_known_tasks([given], "input")
        self._require_what_is_read([given], "input")
        judgements = await self._judgements(variants(given, self.config.limits.max_items - 1), "input")
        return await asyncio.to_thread(
            explanation, self.small_side, given, judgements, top, version=self.version, request_id=request_id
        )

    async def judge_probe(self) -> None:
        """Judge a probe, and raise whatever judging raises."""
        await self.judge.submit([Input(PROBE)])

    def _require_known_tasks(self, inputs: Sequence[Input], place: str = "inputs[{}]") -> None:
        known = self.small_side.bundle.task_names
        for index, item in enumerate(inputs):
            if item.task is not None and item.task not in known:
                nearest = difflib.get_close_matches(item.task, known, n=1, cutoff=0.0)
                hint = f", did you mean '{nearest[0]}'?" if nearest else ""
                raise Refusal(422, f"{place.format(index)}.task: there is no such task{hint}")

    def _require_what_is_read(self, inputs: Sequence[Input], place: str = "inputs[{}]") -> None:
        reads = self.small_side.bundle.reads
        told = " and ".join(sorted(reads))
        for index, item in enumerate(inputs):
            if lacking := item.content.lacks(reads):
                raise Refusal(422, f"{place.format(index)}.{lacking}: this model reads {told}, and there is none")
            if needless := next(iter(item.content.parts - reads), None):
                raise Refusal(422, f"{place.format(index)}.{needless}: this model reads {told} alone")

    async def _judgements(self, inputs: Sequence[Input], place: str = "inputs[{}]") -> list[Judgement]:
        limit_s = min(self.config.judge_timeout_s, self.config.timeout_s)
        try:
            async with asyncio.timeout(limit_s):
                judged = await self.judge.submit(inputs)
        except TimeoutError:
            raise self._later(503, f"not judged within {limit_s:g} s: too much to do") from None
        except QueueFullError:
            raise self._later(429, "too many items wait already") from None
        except UnreadableError as error:
            position, reason = next(iter(error.faults.items()))
            raise Refusal(422, f"{place.format(position)}.image: {reason}") from None
        except TooManyPixelsError as error:
            raise Refusal(422, f"{place.partition('[')[0]}: {error}") from None
        except (DataError, EncoderFailedError):
            logger.exception("the small side gave no numbers")
            raise self._later(503, "the small side failed") from None
        judgements: list[Judgement] = []
        for index, judgement in enumerate(judged):
            if isinstance(judgement, Unreadable):
                raise Refusal(422, f"{place.format(index)}.image: {judgement.reason}")
            judgements.append(judgement)
        return judgements

    def _answers(self, judgements: Sequence[Judgement], large: list[LargeAnswer] | LargeUnavailable) -> list[Answer]:
        """The answers to a request; Refusal where the policy is to have none without the large model."""
        outcomes: Sequence[LargeAnswer | Failure]
        if isinstance(large, LargeUnavailable):
            if self.small_side.policy.on_large_failure == "error":
                raise self._later(large.status, large.reason)
            outcomes = [large] * sum(not judgement.keeps for judgement in judgements)
        else:
            outcomes = large
        answers: list[Answer] = []
        for answer in self.small_side.answers(judgements, outcomes):
            if isinstance(answer, Failure):
                raise self._later(503, f"the large model failed: {answer.reason}")
            answers.append(answer)
        return answers

    def _later(self, status: int, reason: str) -> Refusal:
        return Refusal(status, reason, self.config.retry_after_s)
