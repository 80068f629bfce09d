"""The deployment that clients reach: HTTP door and collaborator in one process, since every hop costs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from kcm.bundle import Bundle
from kcm.cascade.runtime import Answer, Failure, Input, Judgement, escalated_items, load_small_side
from kcm.large import LargeAnswer
from pipelines.serve.api import ModelCard, PredictResponse, Refusal, create_api
from pipelines.serve.config import ServeConfig
from pipelines.serve.escalation import Escalation, Trouble
from pipelines.serve.large import PROBE

logger = logging.getLogger("ray.serve")

PROBE_INTERVAL_S = 0.5


@serve.deployment(name="door")
@serve.ingress()
class Door:
    """Judges every item, answers what the small side keeps, and asks the large model about the rest."""

    async def __init__(
        self, bundle_folder: Path, version: str, config: ServeConfig, assets_dir: Path, large: DeploymentHandle
    ) -> None:
        self._bundle, self._version, self._config = Bundle.read(bundle_folder), version, config
        self._small_side = await asyncio.to_thread(
            load_small_side, self._bundle, assets_dir, config.device, config.top_k
        )
        self._escalation = Escalation(large)
        self._judge_batch.set_max_batch_size(config.max_batch_size)
        self._judge_batch.set_batch_wait_timeout_s(config.batch_wait_timeout_s)
        await self._judge_batch(Input(PROBE.text))  # a replica that cannot judge must not start
        self._waiting_for: str | None = "the large model has not answered yet"
        self._smoke_test = asyncio.create_task(self._probe_large())

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Ray Serve once the replica is constructed."""
        return create_api(self, self._config.limits, self._bundle.task_names)

    async def predict(self, inputs: Sequence[Input], request_id: str) -> PredictResponse:
        """Answer all inputs by one version of the model, or raise Refusal."""
        clock = asyncio.get_running_loop()
        deadline = clock.time() + self._config.timeout_s
        judgements = await self._judge(inputs, deadline)
        timeout_s = min(self._config.large.timeout_s, deadline - clock.time())
        large = await self._escalation.ask(escalated_items(inputs, judgements), timeout_s)
        return PredictResponse(
            model_version=self._version, request_id=request_id, answers=self._answers(judgements, large, request_id)
        )

    def card(self) -> ModelCard:
        """The model that is being served."""
        bundle = self._bundle
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
        """Why this replica is not ready; None once the probe has gone the whole way."""
        return self._waiting_for

    async def _judge(self, inputs: Sequence[Input], deadline: float) -> list[Judgement]:
        try:
            async with asyncio.timeout_at(deadline):
                return list(await asyncio.gather(*map(self._judge_batch, inputs)))
        except TimeoutError:
            raise Refusal(
                503, f"not judged within {self._config.timeout_s:g} s: too much to do", self._config.retry_after_s
            ) from None

    @serve.batch
    async def _judge_batch(self, inputs: list[Input]) -> list[Judgement]:
        # Off the event loop, which has to go on accepting requests and answering health checks.
        return await asyncio.to_thread(self._small_side.judge, inputs)

    def _answers(
        self, judgements: Sequence[Judgement], large: list[LargeAnswer] | Trouble, request_id: str
    ) -> list[Answer]:
        """The answers to a request; Refusal where the policy is to have none without the large model."""
        outcomes: Sequence[LargeAnswer | Failure]
        if isinstance(large, Trouble):
            logger.warning("request %s: %s", request_id, large.reason)
            if self._bundle.policy.on_large_failure == "error":
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

    async def _probe_large(self) -> None:
        """Put the probe to the large model until it answers: only then has an input gone the whole way."""
        while self._waiting_for:
            outcome = await self._escalation.ask([PROBE], self._config.large.timeout_s)
            self._waiting_for = outcome.reason if isinstance(outcome, Trouble) else None
            if self._waiting_for:
                await asyncio.sleep(PROBE_INTERVAL_S)
