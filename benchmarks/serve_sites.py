"""What is measured, started and stopped: the cascade, and the large model alone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ray import serve
from serve_stubs import DoorToLarge

from jobs.service import ServiceSettings
from pipelines.cluster.connection import connected
from pipelines.serve.cascade.models.large import Large
from pipelines.serve.config import ServeConfig
from pipelines.serve.deploy.app import build_app, build_door, deployment_options, start
from pipelines.serve.deploy.environment import prepare_environment
from pipelines.serve.release import Release
from pipelines.serve.sources import FixedSource


@dataclass(frozen=True)
class Place:
    """A release and where it is served, as `kcm serve` would; the feedback log lies in a folder that is thrown away."""

    release: Release
    site: ServiceSettings

    @contextmanager
    def cascade(self) -> Iterator[str]:
        """What `kcm serve` starts."""
        with self._started() as config:
            yield start(build_app(self._source, config, self._assets), config)

    @contextmanager
    def large_only(self) -> Iterator[str]:
        """The same deployments, whose door hands every item on to the large model unseen."""
        with self._started() as config:
            large = Large.options(**deployment_options(config.large, config)).bind(
                self._source, config.large, self._assets, config.feedback, config.limits
            )
            door = serve.deployment(name="door")(DoorToLarge)
            yield start(build_door(self._source, config, self._assets, large, door=door), config)

    @property
    def _source(self) -> FixedSource:
        return FixedSource(self.release)

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
                serve.shutdown()
