"""The deployment of the large model."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ray import serve

from kcm.bundle import Bundle
from kcm.cascade.runtime import load_large
from kcm.large import Item, LargeAnswer
from pipelines.serve.config import LargeReplicaConfig
from pipelines.serve.escalation import PROBE


@serve.deployment(name="large")
class Large:
    """Answers the escalated items of a request; items of several requests are computed together."""

    def __init__(self, bundle_folder: Path, config: LargeReplicaConfig, assets_dir: Path) -> None:
        self._model = load_large(Bundle.read(bundle_folder), assets_dir, config.device)
        self._model.answer([PROBE])  # a replica that cannot answer must not start
        self._answer_batch.set_max_batch_size(config.max_batch_size)
        self._answer_batch.set_batch_wait_timeout_s(config.batch_wait_timeout_s)

    async def answer(self, items: list[Item]) -> list[LargeAnswer]:
        """One answer per item, in their order."""
        return list(await asyncio.gather(*map(self._answer_batch, items)))

    @serve.batch
    async def _answer_batch(self, items: list[Item]) -> list[LargeAnswer]:
        return await asyncio.to_thread(self._model.answer, items)
