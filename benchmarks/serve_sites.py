"""What is measured, started and stopped: the cascade, the large model alone, the stub application, an echo."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ray import serve
from serve_echo import Echo
from serve_stubs import DoorToLarge, DoorWithStub, LargeStub

from jobs.commands.serving.serving import Site
from pipelines._ray_private import end_serve
from pipelines.cluster.connection import connected
from pipelines.serve.cascade.models.large import Large
from pipelines.serve.config import ServeConfig
from pipelines.serve.deploy.app import (
    LOGGING,
    build_door,
    deployment_options,
    start,
    start_proxy,
    wait_until_ready,
)
from pipelines.serve.deploy.deployment import deploy
from pipelines.serve.deploy.environment import prepare_environment
from pipelines.serve.release import Release


@dataclass(frozen=True)
class Place:
    """A release and where it is served, as `kcm serve` would; the feedback log lies in a folder that is thrown away."""

    release: Release
    site: Site

    @contextmanager
    def cascade(self) -> Iterator[str]:
        """What `kcm serve` starts."""
        with self._started() as config:
            yield deploy(self.release, config, self.site.assets_path)

    @contextmanager
    def large_only(self) -> Iterator[str]:
        """The same deployments, whose door hands every item on to the large model unseen."""
        with self._started() as config:
            large = Large.options(**self._large_options(config)).bind(
                config.large, self._assets, config.feedback, config.limits
            )
            door = serve.deployment(name="door")(DoorToLarge)
            yield start(build_door(self.release, config, self._assets, large, door=door), config)

    @contextmanager
    def stub(self) -> Iterator[str]:
        """The same deployments around stub encoders."""
        with self._started() as config:
            large = serve.deployment(name="large")(LargeStub).options(**self._large_options(config))
            door = serve.deployment(name="door")(DoorWithStub)
            app = build_door(
                self.release,
                config,
                self._assets,
                large.bind(config.large, self._assets, config.feedback, config.limits),
                door=door,
            )
            yield start(app, config)

    @contextmanager
    def echo(self) -> Iterator[str]:
        """FastAPI and a batch in one deployment, with the door's own limits."""
        with self._started() as config:
            options = deployment_options(config, config)
            start_proxy(config)
            serve.run(Echo.options(**options).bind(), name="echo", route_prefix="/", logging_config=LOGGING)
            yield wait_until_ready(config, 60.0)

    @property
    def _assets(self) -> Path:
        return self.site.assets_path.absolute()

    @contextmanager
    def _started(self) -> Iterator[ServeConfig]:
        prepare_environment()
        with tempfile.TemporaryDirectory() as folder, connected(self.site.cluster):
            try:
                yield self.site.with_feedback_in(Path(folder)).serve
            finally:
                end_serve()

    def _large_options(self, config: ServeConfig) -> dict[str, object]:
        return deployment_options(config.large, config) | {"user_config": self.release.model_dump(mode="json")}
