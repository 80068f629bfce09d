"""The deployment that clients reach: HTTP interface and collaborator in one process, because every hop costs time."""

from __future__ import annotations

import asyncio
import logging
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

logger = logging.getLogger("ray.serve")

HTTP_REPLICA = "http"  # its name among the deployments
FOLLOW_S = 5.0  # between looks at the number of replicas


@serve.deployment(name=HTTP_REPLICA)
@serve.ingress()
class HttpReplica:
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
        rate = config.auth.requests_per_minute
        self._rate_limit = RateLimit(rate, config.num_replicas) if rate else None
        if self._rate_limit and config.min_replicas is not None:
            self._tasks.append(asyncio.create_task(_follow_replicas(self._rate_limit)))
        self._follower: ReleaseFollower | None = None
        if isinstance(source, ChampionSource):
            replica = serve.get_replica_context().replica_id.unique_id
            self._follower = ReleaseFollower(source, replica, self._service)
            self._tasks.append(asyncio.create_task(self._follower.run()))

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The HTTP interface; called by Ray Serve once the replica is constructed."""
        auth = self._config.auth
        keys = Keys(auth.keys_file) if auth.keys_file else None
        return create_api(self._service, self._config, keys, self._rate_limit)

    def __del__(self) -> None:
        """Write all pending entries; called by Ray Serve, also after a failed construction."""
        for task in getattr(self, "_tasks", ()):
            task.cancel()
        if follower := getattr(self, "_follower", None):
            follower.close()
        if writer := getattr(self, "_writer", None):
            writer.close()


async def _follow_replicas(rate_limit: RateLimit) -> None:
    """Divide the rate limit among the HTTP replicas that run; their number follows the load."""
    while True:
        await asyncio.sleep(FOLLOW_S)
        try:
            rate_limit.share_among(max(1, await asyncio.to_thread(_num_running)))
        except RuntimeError as error:  # the controller restarts: the last share stays
            logger.warning("the number of HTTP replicas is unknown: %s", error)


def _num_running() -> int:
    """The number of HTTP replicas that accept requests."""
    application = serve.get_replica_context().app_name
    states = serve.status().applications[application].deployments[HTTP_REPLICA].replica_states
    return sum(number for state, number in states.items() if state.value == "RUNNING")
