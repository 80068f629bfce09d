"""The deployment that clients reach."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from kcm.config import parse_config
from pipelines.serve.config import ServeConfig
from pipelines.serve.heap import uncollected
from pipelines.serve.release import Release

if TYPE_CHECKING:
    from fastapi import FastAPI

    from pipelines.serve.deploy.replica import DoorReplica


@serve.deployment(name="door")
@serve.ingress()
class Door:
    """The deployment around a `DoorReplica`.

    Which version it serves is its `user_config`, a Release: Ray Serve calls `reconfigure` when that changes.
    """

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits it
        self,
        config: ServeConfig,
        assets_dir: Path,
        large: DeploymentHandle[Any],
        encoder: DeploymentHandle[Any] | None = None,
    ) -> None:
        with uncollected():
            replica_class = await asyncio.to_thread(self.replica_class)
        self._replica = replica_class(config, assets_dir, large, encoder)
        await self._replica.open()

    def replica_class(self) -> type[DoorReplica]:
        """What the replica is made of, imported where it runs: building an application takes no torch."""
        from pipelines.serve.deploy.replica import DoorReplica

        return DoorReplica

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Ray Serve once the replica is constructed."""
        return self._replica.api()

    def __del__(self) -> None:
        """Called by Ray Serve when the replica stops, also where its construction failed."""
        if replica := getattr(self, "_replica", None):
            replica.close()

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Serve the release that the configuration names; returns before one that takes over has been loaded."""
        await self._replica.stage(parse_config(Release, user_config, where="user_config"))

    async def status(self) -> dict[str, Any]:
        """Which replica this is and what it serves, for `deployment.change_release`."""
        card = self._replica.card()
        return {
            "replica": serve.get_replica_context().replica_id.unique_id,
            "version": card.model_version,
            "loading": card.loading,
            "refused": card.refused.model_dump() if card.refused else None,
            "challenger": card.challenger.model_dump() if card.challenger else None,
        }
