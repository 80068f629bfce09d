"""The served cascade without Ray: a service around one version, and metrics that nobody reads."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kcm.bundle.runtime import SmallSide
from kcm.inputs.content import IMAGE, TEXT, Content
from pipelines.serve.breaker import Breaker, BreakerConfig
from pipelines.serve.cascade.models.judging import Judging, PictureReader
from pipelines.serve.cascade.service import CascadeService
from pipelines.serve.cascade.version import CascadeVersion
from pipelines.serve.config import BatchingConfig, ServeConfig
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


class StubEncoder:
    """Zeros for every content; counts what it has encoded."""

    dim, identity, reads = 4, "encoder", TEXT | IMAGE

    def __init__(self, read: Callable[[Content], Content] = lambda content: content) -> None:
        self.read = read
        self.num_encoded = 0

    def encode(self, inputs: Sequence[Content]) -> np.ndarray:
        self.num_encoded += len(inputs)
        return np.zeros((len(inputs), 4), np.float32)


def version_of(
    small_side: SmallSide,
    escalation: Any,
    config: ServeConfig,
    *,
    name: str = "5",
    max_waiting: int = 1024,
    decode: Callable[[Content], Content] = lambda content: content,
    encoder: Any = None,
    auditor: Any = None,
    judging: Judging | None = None,
) -> CascadeVersion:
    """A version that judges in batches of at most 8, by `judging` where there is one; pictures are read by `decode`."""
    pictures = PictureReader(decode, BatchingConfig(max_waiting_items=100), max_pixels=1000)
    limits = BatchingConfig(max_batch_size=8, max_waiting_items=max_waiting)
    judging = judging or Judging(encoder or StubEncoder(), pictures, limits)
    return CascadeVersion(small_side, judging, escalation, config, name, auditor)


async def service_of(version: CascadeVersion, metrics: Any = None, log: LogWriter | None = None) -> CascadeService:
    """The service of a replica that has loaded `version`."""

    async def load(_: Release, beside: CascadeVersion | None) -> CascadeVersion:
        return version

    service = CascadeService(load, version.config, Breaker(BreakerConfig()), metrics or NoMetrics(), log)
    await service.stage(Release(version=version.name, bundle=Path("/bundles") / version.name))
    return service
