"""The deployment of the large model."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from ray import serve

from kcm.bundle.frozen_models import FrozenModels, load_large
from kcm.errors import ConfigError
from kcm.large import PROBE, AsksEach, Item, LargeAnswer, LargeModel, ReadsAhead, UpstreamConfig
from kcm.redact import redact_logger
from pipelines.serve.cascade.models.judging import PictureReader
from pipelines.serve.cascade.models.queues import Batcher, QuestionQueue
from pipelines.serve.config import MAX_PIXELS, MAX_WAITING_ITEMS, FeedbackConfig, LargeReplicaConfig
from pipelines.serve.release import Release, ReleaseCache
from pipelines.serve.sources import Source

if TYPE_CHECKING:
    from kcm.large.response_cache import ResponseStore

logger = logging.getLogger("ray.serve")

ANSWERED_WITHIN = 0.9  # share of a call's time: the answers still have to get back to the HTTP replica


@dataclass(frozen=True)
class Loaded:
    """A model's queue, and the reader of its pictures; the reader is None if the model reads no pictures itself."""

    queue: Batcher[Item, LargeAnswer] | QuestionQueue
    pictures: PictureReader | None


@serve.deployment(name="large")
class Large:
    """Answers the escalated items of a request; items of several requests are computed together, or one by one.

    A replica loads the first release of `source` before it answers, and any other release on first use. `log` is the
    database in which replicas share a budget.
    """

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits it
        self,
        source: Source,
        config: LargeReplicaConfig,
        assets_dir: Path,
        log: FeedbackConfig,
    ) -> None:
        self._source, self._config, self._assets_dir = source, config, assets_dir
        self._log = log
        self._models = ReleaseCache(self._load)
        self._by_model: WeakValueDictionary[str, Loaded] = WeakValueDictionary()
        redact_logger("ray.serve")
        await self._models.get(await asyncio.to_thread(source.first))

    async def answer(self, items: list[Item], release: Release) -> list[LargeAnswer]:
        """One answer per item, in their order."""
        model = await self._models.get(release)
        if model.pictures:
            items = await model.pictures.read(items, strict=False)
        return await model.queue.submit(items)

    async def _load(self, release: Release) -> Loaded:
        """The release's large model; versions with the same model share it."""
        folder = await asyncio.to_thread(self._source.folder, release)
        bundle = await asyncio.to_thread(FrozenModels.read_models, folder)
        key = f"{bundle.large_identity} {bundle.large.model_dump_json()}"  # its address may differ
        if loaded_model := self._by_model.get(key):
            return loaded_model
        return self._by_model.setdefault(key, await self._loaded(bundle))

    async def _loaded(self, bundle: FrozenModels) -> Loaded:
        model = await asyncio.to_thread(self._large_model, bundle)
        # A model that cannot answer must not be used. A server may come back later, and a budget may be raised.
        (answer,) = await asyncio.to_thread(model.answer, [PROBE])
        if answer.error and not answer.off_label:  # logged only here: clients get the small model's answers
            logger.warning("the large model does not answer a probe: %s", answer.error)
        return Loaded(self._queue(model), self._pictures(model) if "image" in bundle.large.reads else None)

    def _queue(self, model: LargeModel) -> Batcher[Item, LargeAnswer] | QuestionQueue:
        config = self._config
        if isinstance(model, AsksEach):
            timeout_s = ANSWERED_WITHIN * config.attempt_timeout_s
            return QuestionQueue(model.ask, max_waiting=MAX_WAITING_ITEMS, timeout_s=timeout_s)
        return Batcher(
            model.answer,
            lambda item: item.content.size,
            config,
            max_wait_s=ANSWERED_WITHIN * config.attempt_timeout_s,
        )

    def _pictures(self, model: LargeModel) -> PictureReader | None:
        """The model's reader of pictures: they are decoded and small before they join a batch."""
        return PictureReader(model.read, self._config, MAX_PIXELS) if isinstance(model, ReadsAhead) else None

    def _large_model(self, bundle: FrozenModels) -> LargeModel:
        config = self._config
        return load_large(
            bundle,
            self._assets_dir,
            config.device,
            upstreams=config.upstreams,
            responses=budget_store(bundle.large.at(config.upstreams).upstream, self._log),
            limit_s=config.attempt_timeout_s,
        )


def budget_store(server: UpstreamConfig | None, log: FeedbackConfig) -> ResponseStore | None:
    """The place where replicas share the budget of a server, also after a restart; None without a budget.

    Raises ConfigError if there is no database for a budget.
    """
    if server is None or server.max_calls is server.max_cost is None:
        return None
    from kcm.large.response_cache import ResponseStore  # a database: only paid models need it

    if log.url is None:
        raise ConfigError(
            "there is a budget (max_calls or max_cost), but no database for replicas to share it",
            where="serve.feedback.url",
            hint="Set it, or drop the budget",
        )
    return ResponseStore.in_log(log.url, log.timeout_s)
