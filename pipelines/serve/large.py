"""The deployment of the large model."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from pathlib import Path
from typing import Any

from ray import serve

from kcm.bundle import Bundle
from kcm.cascade.runtime import load_large
from kcm.config import parse_config
from kcm.large import Item, LargeAnswer, LargeModel
from pipelines.serve.batcher import Batcher
from pipelines.serve.config import LargeReplicaConfig
from pipelines.serve.escalation import PROBE
from pipelines.serve.release import Release

Model = Batcher[Item, LargeAnswer]

KEPT = 2  # releases in memory: while doors go from one to the next, both are asked


@serve.deployment(name="large")
class Large:
    """Answers the escalated items of a request; items of several requests are computed together.

    Every call names its release. One that is not in memory is loaded for it, so that doors may change in any order.
    """

    def __init__(self, config: LargeReplicaConfig, assets_dir: Path) -> None:
        self._config, self._assets_dir = config, assets_dir
        self._models: OrderedDict[Release, asyncio.Task[Model]] = OrderedDict()

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Load the release that the configuration names: the first before anything is answered, others behind it."""
        first = not self._models
        loading = self._load_once(parse_config(Release, user_config, where="user_config"))
        if first:
            await loading

    async def answer(self, items: list[Item], release: Release) -> list[LargeAnswer]:
        """One answer per item, in their order."""
        # Shielded: one client that leaves must not end the loading that others wait for.
        model = await asyncio.shield(self._load_once(release))
        return await model.submit(items)

    def _load_once(self, release: Release) -> asyncio.Task[Model]:
        known = self._models.get(release)
        if known is None or (known.done() and known.exception()):
            self._models[release] = known = asyncio.create_task(self._load(release))
        self._models.move_to_end(release)
        while len(self._models) > KEPT:
            self._models.popitem(last=False)
        return known

    async def _load(self, release: Release) -> Model:
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
