"""The deployment that clients reach: HTTP interface and collaborator in one process, since every hop costs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from kcm.bundle import Bundle
from kcm.cascade.runtime import Input, Judgement, load_small_side
from pipelines.serve.api import create_api
from pipelines.serve.config import ServeConfig
from pipelines.serve.escalation import Escalation
from pipelines.serve.service import CascadeService


@serve.deployment(name="door")
@serve.ingress()
class Door:
    """Holds the small side; items of several requests are judged together."""

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits it
        self, bundle_folder: Path, version: str, config: ServeConfig, assets_dir: Path, large: DeploymentHandle[Any]
    ) -> None:
        bundle = Bundle.read(bundle_folder)
        self._small_side = await asyncio.to_thread(load_small_side, bundle, assets_dir, config.device, config.top_k)
        self._judge_batch.set_max_batch_size(config.max_batch_size)
        self._judge_batch.set_batch_wait_timeout_s(config.batch_wait_timeout_s)
        self._service = CascadeService(self._small_side, self._judge_batch, Escalation(large), config, version)
        self._limits, self._task_names = config.limits, bundle.task_names
        await self._service.judge_probe()  # a replica that cannot judge must not start
        self._probing = asyncio.create_task(self._service.become_ready())

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Ray Serve once the replica is constructed."""
        return create_api(self._service, self._limits, self._task_names)

    @serve.batch
    async def _judge_batch(self, inputs: list[Input]) -> list[Judgement]:
        # Off the event loop, which has to go on accepting requests and answering health checks.
        return await asyncio.to_thread(self._small_side.judge, inputs)
