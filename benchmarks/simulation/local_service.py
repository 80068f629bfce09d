"""The service of a run in this process, without replicas, for the traffic of a simulation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

from kcm.bundle.answers import Input
from kcm.bundle.frozen_models import FrozenModels, load_large
from kcm.large import Item, LargeAnswer, LargeModel, UpstreamConfig
from pipelines.config import RunConfig
from pipelines.serve.breaker import Breaker
from pipelines.serve.cascade.loading import VersionLoader
from pipelines.serve.cascade.service import CascadeService
from pipelines.serve.cascade.version import CascadeVersion
from pipelines.serve.config import log_url
from pipelines.serve.http.refusals import status_of
from pipelines.serve.log.entries import Origin
from pipelines.serve.log.writer import LogWriter
from pipelines.serve.metrics import ServeMetrics
from pipelines.serve.release import Release
from pipelines.serve.schemas import PredictResponse
from pipelines.serve.sources import ChampionSource


class LocalLarge:
    """The large model's deployment in this process, as `Escalation` calls it."""

    def __init__(self, assets_dir: Path, upstreams: Sequence[UpstreamConfig]) -> None:
        self._assets_dir, self._upstreams = assets_dir, upstreams
        self._model = cache(self._load)

    @property
    def answer(self) -> LocalLarge:
        """The method that is called by `remote`."""
        return self

    def remote(self, items: Sequence[Item], release: Release) -> asyncio.Task[list[LargeAnswer]]:
        """The answers of the release's large model, as soon as they are there."""
        return asyncio.create_task(asyncio.to_thread(lambda: self._model(release.bundle).answer(items)))

    def _load(self, folder: Path) -> LargeModel:
        return load_large(FrozenModels.read_models(folder), self._assets_dir, upstreams=self._upstreams)


class LocalService:
    """The champion of a run answers requests; new classes and alarms are checked after each request."""

    def __init__(self, config: RunConfig) -> None:
        self._source = ChampionSource(str(config.storage_path), config.name)
        serve = config.serve.model_copy(update={"application": config.application})
        self.log = LogWriter(serve.feedback, log_url(serve, config.storage_folder), application=config.application)
        breaker, metrics = Breaker(serve.large.breaker), ServeMetrics()
        large: Any = LocalLarge(config.assets_path, config.upstreams)
        self._loader = VersionLoader(serve, config.assets_path, large, breaker, metrics, self.log)
        self._service = CascadeService(self._load, serve, breaker, metrics, self.log, status_of)
        self.version: CascadeVersion
        self.feedback = self._service.feedback

    async def follow(self) -> None:
        """Serve what the champion pointer names now."""
        await self._service.stage(await asyncio.to_thread(self._source.first))
        await self._service.settled()

    async def predict(self, inputs: Sequence[Input], request_id: str) -> PredictResponse:
        """Answer a request. Returns after its audits have ended and their outcome has been acted on."""
        response = await self._service.predict(inputs, Origin(request_id))
        await self.log.flush()
        await self._service.settled()
        if self.version.auditor:
            await self.version.auditor.monitor.check()
        if self.version.novelty:
            await self.version.novelty.look()
        return response

    async def _load(self, release: Release, champion: CascadeVersion | None) -> CascadeVersion:
        self.version = await self._loader.load(release, champion)
        return self.version


@asynccontextmanager
async def local_service(config: RunConfig) -> AsyncIterator[LocalService]:
    """The service of a run's champion within the block; its whole log is written when the block ends."""
    service = LocalService(config)
    await service.log.open()
    try:
        await service.follow()
        yield service
    finally:
        await service.log.flush()
        service.log.close()
