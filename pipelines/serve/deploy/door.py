"""The deployment that clients reach: HTTP interface and collaborator in one process, because every hop costs time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from kcm.redact import redact_logger
from pipelines.serve.breaker import Breaker, RateLimit
from pipelines.serve.cascade.loading import VersionLoader
from pipelines.serve.cascade.service import CascadeService
from pipelines.serve.config import ServeConfig
from pipelines.serve.deploy.follow import ReleaseFollower
from pipelines.serve.http.api import create_api
from pipelines.serve.http.keys import Keys
from pipelines.serve.http.refusals import status_of
from pipelines.serve.log.writer import LogWriter
from pipelines.serve.metrics import ServeMetrics
from pipelines.serve.sources import ChampionSource, Source

DOOR = "door"  # its name among the deployments


@serve.deployment(name=DOOR)
@serve.ingress()
class Door:
    """Holds the small side; items of several requests are judged together.

    It serves the release of `source`, and follows the pointer if the release is a champion.
    """

    loader_class = VersionLoader

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits it
        self,
        source: Source,
        config: ServeConfig,
        assets_dir: Path,
        large: DeploymentHandle[Any],
    ) -> None:
        self._config = config
        redact_logger("ray.serve")
        breaker = Breaker(config.large.breaker)
        metrics = ServeMetrics()
        url = config.feedback.url
        self._writer = LogWriter(config.feedback, url, metrics.unstored, config.application) if url else None
        loader = self.loader_class(config, assets_dir, large, breaker, metrics, self._writer)
        self._service = CascadeService(loader.load, config, breaker, metrics, self._writer, status_of)
        if self._writer:
            await self._writer.open()
        await self._service.stage(await asyncio.to_thread(source.first))
        self._tasks = [asyncio.create_task(self._service.become_ready())]
        self._follower: ReleaseFollower | None = None
        if isinstance(source, ChampionSource):
            replica = serve.get_replica_context().replica_id.unique_id
            self._follower = ReleaseFollower(source, replica, self._service)
            self._tasks.append(asyncio.create_task(self._follower.run()))

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The HTTP interface; called by Ray Serve once the replica is constructed."""
        auth = self._config.auth
        keys = Keys(auth.keys_file) if auth.keys_file else None
        # Each replica keeps its own share, at least one request, so all replicas together respect the limit.
        share = auth.requests_per_minute and auth.requests_per_minute / self._config.num_replicas
        return create_api(self._service, self._config, keys, RateLimit(share) if share else None)

    def __del__(self) -> None:
        """Write all pending entries; called by Ray Serve, also after a failed construction."""
        for task in getattr(self, "_tasks", ()):
            task.cancel()
        if follower := getattr(self, "_follower", None):
            follower.close()
        if writer := getattr(self, "_writer", None):
            writer.close()
