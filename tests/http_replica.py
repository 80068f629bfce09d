"""The HTTP replica and the large model's deployment in this process, without Ray, asked over ASGI."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from pipelines.serve.cascade.models.large import Large
from pipelines.serve.config import ServeConfig
from pipelines.serve.deploy.http_replica import HttpReplica
from pipelines.serve.release import Release
from pipelines.serve.sources import FixedSource
from tests.pipelines.serve.stubs import Handle


@asynccontextmanager
async def opened_http_replica(
    release: Release, config: ServeConfig, assets_dir: Path
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service that serves this release for good."""
    source, large_class = FixedSource(release), Large.func_or_class  # type: ignore[attr-defined]
    large = large_class.__new__(large_class)
    await large.__init__(source, config.large, assets_dir, config.feedback)
    replica_class = HttpReplica.func_or_class.__mro__[1]  # type: ignore[attr-defined]  # as it is written, unwrapped
    http_replica = replica_class.__new__(replica_class)
    await http_replica.__init__(source, config, assets_dir, Handle(large.answer))
    transport = httpx.ASGITransport(app=http_replica.__serve_build_asgi_app__())
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as client:
        yield client
