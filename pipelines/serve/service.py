"""What becomes of one request: judged, escalated where need be, answered or refused, within its time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from kcm.cascade.runtime import Answer, Failure, Input, Judgement, SmallSide
from kcm.large import LargeAnswer
from pipelines.serve.api import ModelCard, PredictResponse, Refusal
from pipelines.serve.config import ServeConfig
from pipelines.serve.escalation import PROBE, Escalation, Trouble

PROBE_INTERVAL_S = 0.5

logger = logging.getLogger("ray.serve")


class CascadeService:
    """One version of the cascade; `judge` is the small side's judgement of a single input, batched or not."""

    def __init__(
        self,
        small_side: SmallSide,
        judge: Callable[[Input], Awaitable[Judgement]],
        escalation: Escalation,
        config: ServeConfig,
        version: str,
    ) -> None:
        self._small_side, self._judge, self._escalation = small_side, judge, escalation
        self._config, self._version = config, version
        self._waiting_for: str | None = "the large model has not answered yet"

    async def predict(self, inputs: Sequence[Input], request_id: str) -> PredictResponse:
        """Answer all inputs by this version, or raise Refusal."""
        clock = asyncio.get_running_loop()
        deadline = clock.time() + self._config.timeout_s
        judgements = await self._judgements(inputs, deadline)
        timeout_s = min(self._config.large.timeout_s, deadline - clock.time())
        large = await self._escalation.ask(self._small_side.questions(inputs, judgements), timeout_s)
        if isinstance(large, Trouble):
            logger.warning("request %s: %s", request_id, large.reason)
        return PredictResponse(
            model_version=self._version, request_id=request_id, answers=self._answers(judgements, large)
        )

    def card(self) -> ModelCard:
        """The model that is being served."""
        bundle = self._small_side.bundle
        certificates = dict(bundle.certificates)
        return ModelCard(
            model_version=self._version,
            digest=bundle.digest,
            labels=list(bundle.label_names),
            tasks=list(bundle.task_names),
            encoder=bundle.encoder.model,
            large=bundle.large.adapter,
            policy=bundle.policy,
            certificate=certificates.pop(None, None),
            task_certificates={task: certificate for task, certificate in certificates.items() if task is not None},
            lineage=bundle.lineage.model_dump(mode="json"),
        )

    def waiting_for(self) -> str | None:
        """Why requests cannot be answered yet; None once the probe has gone the whole way."""
        return self._waiting_for

    async def judge_probe(self) -> None:
        """Judge a probe, and raise whatever judging raises."""
        await self._judge(Input(PROBE.text))

    async def become_ready(self) -> None:
        """Put the probe to the large model until that answers."""
        while isinstance(outcome := await self._escalation.ask([PROBE], self._config.large.timeout_s), Trouble):
            self._waiting_for = outcome.reason
            await asyncio.sleep(PROBE_INTERVAL_S)
        self._waiting_for = None

    async def _judgements(self, inputs: Sequence[Input], deadline: float) -> list[Judgement]:
        try:
            async with asyncio.timeout_at(deadline):
                return list(await asyncio.gather(*map(self._judge, inputs)))
        except TimeoutError:
            reason = f"not judged within {self._config.timeout_s:g} s: too much to do"
            raise Refusal(503, reason, self._config.retry_after_s) from None

    def _answers(self, judgements: Sequence[Judgement], large: list[LargeAnswer] | Trouble) -> list[Answer]:
        """The answers to a request; Refusal where the policy is to have none without the large model."""
        outcomes: Sequence[LargeAnswer | Failure]
        if isinstance(large, Trouble):
            if self._small_side.policy.on_large_failure == "error":
                raise Refusal(large.status, large.reason, self._config.retry_after_s)
            outcomes = [large] * sum(not judgement.keeps for judgement in judgements)
        else:
            outcomes = large
        answers: list[Answer] = []
        for answer in self._small_side.answers(judgements, outcomes):
            if isinstance(answer, Failure):
                raise Refusal(503, f"the large model failed: {answer.reason}", self._config.retry_after_s)
            answers.append(answer)
        return answers
