"""The deployment of the large model."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from ray import serve

from kcm.bundle.bundle import Bundle
from kcm.bundle.runtime import load_large
from kcm.large import Item, LargeAnswer, LargeModel
from kcm.redact import redact_logger
from pipelines.serve.cascade.batcher import Batcher
from pipelines.serve.cascade.escalation import PROBE
from pipelines.serve.cascade.loaded import Loaded
from pipelines.serve.deploy.config import LargeReplicaConfig
from pipelines.serve.deploy.release import Release


@serve.deployment(name="large")
class Large:
    """Answers the escalated items of a request; items of several requests are computed together."""

    def __init__(self, config: LargeReplicaConfig, assets_dir: Path) -> None:
        self._config, self._assets_dir = config, assets_dir
        self._models = Loaded(self._load)
        redact_logger("ray.serve")

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Load the release that the configuration names."""
        await self._models.prepare(user_config)

    async def answer(self, items: list[Item], release: Release) -> list[LargeAnswer]:
        """One answer per item, in their order."""
        model = await self._models.of(release)
        return await model.submit(items)

    async def _load(self, release: Release) -> Batcher[Item, LargeAnswer]:
        bundle = await asyncio.to_thread(Bundle.read, release.bundle)
        model = await asyncio.to_thread(self._large_model, bundle)
        await asyncio.to_thread(model.answer, [PROBE])  # a model that cannot answer must not be used
        return Batcher(
            model.answer,
            lambda item: item.content.size,
            max_batch_size=self._config.max_batch_size,
            max_waiting=self._config.max_waiting_items,
            wait_s=self._config.batch_wait_timeout_s,
        )

    def _large_model(self, bundle: Bundle) -> LargeModel:
        return load_large(bundle, self._assets_dir, self._config.device)
