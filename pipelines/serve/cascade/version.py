"""One version of the cascade in memory: it judges inputs, escalates what it does not keep, and joins the answers."""

from __future__ import annotations

import asyncio
import difflib
import logging
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
from pipelines.serve.cascade.pictures import PictureReader, TooManyPixelsError
from pipelines.serve.config import ServeConfig
from pipelines.serve.log.audit import Auditor
from pipelines.serve.schemas import Refusal

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class CascadeVersion:
    """The steps of a prediction by one version; each raises Refusal.

    `batcher` computes the judgements of the small side, whose pictures `pictures` has read. `auditor` is None without
    audits.
    """

    small_side: SmallSide
    pictures: PictureReader
    batcher: Batcher[Input, Judgement | Unreadable]
    escalation: Escalation
    config: ServeConfig
    name: str
    auditor: Auditor | None = None

    async def judge(self, inputs: Sequence[Input], place: str = "inputs[{}]") -> list[Judgement]:
        """One judgement per input; a refusal names an input by `place`, formatted with its position."""
        self._require_known_tasks(inputs, place)
        self._require_readable_parts(inputs, place)
        return await self._judgements(inputs, place)

    async def escalate(
        self, inputs: Sequence[Input], judgements: Sequence[Judgement], timeout_s: float
    ) -> list[LargeAnswer] | LargeUnavailable:
        """The large model's answers to the inputs that are not kept, in their order."""
        questions = self.small_side.questions(inputs, judgements)
        return await self.escalation.ask(questions, min(self.config.large.timeout_s, timeout_s))

    def answers(self, judgements: Sequence[Judgement], large: list[LargeAnswer] | LargeUnavailable) -> list[Answer]:
        """The answers of a request; Refusal where the large model failed and the policy has nothing in its place."""
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

    async def explain(self, given: Input, top: int, request_id: str) -> Explanation:
        """Say why this input is decided as it is. The judgements of its variants queue with other items."""
        self._require_known_tasks([given], "input")
        self._require_readable_parts([given], "input")
        judgements = await self._judgements(variants(given, self.config.limits.max_items - 1), "input")
        return await asyncio.to_thread(
            explanation, self.small_side, given, judgements, top, version=self.name, request_id=request_id
        )

    async def judge_probe(self) -> None:
        """Judge a probe. Raises what judging raises."""
        await self.batcher.submit(await self.pictures.read([Input(PROBE)]))

    def _require_known_tasks(self, inputs: Sequence[Input], place: str) -> None:
        known = self.small_side.bundle.task_names
        for index, item in enumerate(inputs):
            if item.task is not None and item.task not in known:
                nearest = difflib.get_close_matches(item.task, known, n=1, cutoff=0.0)
                hint = f", did you mean '{nearest[0]}'?" if nearest else ""
                raise Refusal(422, f"{place.format(index)}.task: there is no such task{hint}")

    def _require_readable_parts(self, inputs: Sequence[Input], place: str) -> None:
        reads = self.small_side.bundle.reads
        parts = " and ".join(sorted(reads))
        for index, item in enumerate(inputs):
            if missing := item.content.lacks(reads):
                raise Refusal(422, f"{place.format(index)}.{missing}: this model reads {parts}, and there is none")
            if needless := next(iter(item.content.parts - reads), None):
                raise Refusal(422, f"{place.format(index)}.{needless}: this model reads {parts} alone")

    async def _judgements(self, inputs: Sequence[Input], place: str) -> list[Judgement]:
        limit_s = min(self.config.judge_timeout_s, self.config.timeout_s)
        try:
            async with asyncio.timeout(limit_s):
                judged = await self.batcher.submit(await self.pictures.read(inputs))
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

    def _later(self, status: int, reason: str) -> Refusal:
        return Refusal(status, reason, self.config.retry_after_s)
