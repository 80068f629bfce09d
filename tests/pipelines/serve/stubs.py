"""The served cascade without Ray: a service around one version, and metrics that nobody reads."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from kcm.bundle.runtime import SmallSide
from kcm.inputs.content import Content
from pipelines.serve.breaker import Breaker, BreakerConfig
from pipelines.serve.cascade.batcher import Batcher
from pipelines.serve.cascade.pictures import PictureReader
from pipelines.serve.cascade.service import CascadeService
from pipelines.serve.cascade.version import CascadeVersion
from pipelines.serve.config import ServeConfig
from pipelines.serve.log.writer import LogWriter
from pipelines.serve.release import Release


def picture(width: int, height: int = 1) -> bytes:
    """A PNG file of this size."""
    stream = io.BytesIO()
    Image.new("1", (width, height)).save(stream, "PNG")
    return stream.getvalue()


class NoMetrics:
    """Counts nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def version_of(
    small_side: SmallSide,
    escalation: Any,
    config: ServeConfig,
    *,
    name: str = "5",
    max_waiting: int = 100,
    decode: Callable[[Content], Content] = lambda content: content,
    auditor: Any = None,
) -> CascadeVersion:
    """A version that judges in batches of at most 8; pictures are read by `decode`."""
    pictures = PictureReader(decode, max_pixels=1000, max_waiting=100, num_threads=1)
    batcher = Batcher(small_side.judge, lambda given: given.content.size, max_batch_size=8, max_waiting=max_waiting)
    return CascadeVersion(small_side, pictures, batcher, escalation, config, name, auditor)


async def service_of(version: CascadeVersion, metrics: Any = None, log: LogWriter | None = None) -> CascadeService:
    """The service of a replica that has loaded `version`."""

    async def load(_: Release) -> CascadeVersion:
        return version

    async def exposition() -> str:
        return "everything counted"

    service = CascadeService(load, version.config, Breaker(BreakerConfig()), metrics or NoMetrics(), log, exposition)
    await service.stage(Release(version=version.name, bundle=Path("/bundles") / version.name))
    return service
