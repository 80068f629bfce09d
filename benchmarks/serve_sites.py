"""What is measured, started and stopped: the cascade, the large model alone, the stub application, an echo."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ray import serve
from serve_echo import Echo
from serve_stubs import DoorToLarge, DoorWithStub, LargeStub

from jobs.service import ServiceSettings
from kcm.bundle.models import bundle_digest
from pipelines.cluster.connection import connected
from pipelines.registry.champion import BUNDLE, REGISTER, Pointer
from pipelines.registry.promote import champion_now
from pipelines.serve.cascade.models.large import Large
from pipelines.serve.config import ServeConfig
from pipelines.serve.deploy.app import build_app, build_door, deployment_options, start
from pipelines.serve.deploy.environment import prepare_environment
from pipelines.serve.release import Release
from pipelines.serve.sources import ChampionSource, FixedSource
from pipelines.store.artefact import ArtefactStore
from pipelines.store.manifest import publish

NAME = "bench"


@dataclass(frozen=True)
class Place:
    """A release and where it is served, as `kcm serve` would; the feedback log lies in a folder that is thrown away."""

    release: Release
    site: ServiceSettings

    @contextmanager
    def cascade(self) -> Iterator[str]:
        """What `kcm serve` starts."""
        with self._started() as config:
            self.promote(self.release.version)
            source = ChampionSource(str(self.store.root), NAME)
            yield start(build_app(source, config, self._assets), config)

    @cached_property
    def store(self) -> ArtefactStore:
        """A storage whose champion pointer the cascade follows."""
        return ArtefactStore(tempfile.mkdtemp())

    def promote(self, version: str) -> None:
        """Make the bundle, by this name, the champion, and wait until every replica serves it."""
        digest = bundle_digest(self.release.bundle)
        home = self.store.root / "artefacts" / REGISTER / digest[:16]
        if not home.exists():
            shutil.copytree(self.release.bundle, home / "attempt-bench" / BUNDLE)
            publish(self.store.storage, home, {"stage": REGISTER}, home / "attempt-bench")
        champion = champion_now(version, digest, digest[:16], by="promote")
        pointer = Pointer(self.store.control, NAME)
        current = pointer.current()
        now = pointer.swap(current.number if current else 0, champion)
        assert now is not None
        pointer.reports.settled(now.record, 300.0)

    @contextmanager
    def large_only(self) -> Iterator[str]:
        """The same deployments, whose door hands every item on to the large model unseen."""
        with self._started() as config:
            large = Large.options(**deployment_options(config.large, config)).bind(
                self._source, config.large, self._assets, config.feedback, config.limits
            )
            door = serve.deployment(name="door")(DoorToLarge)
            yield start(build_door(self._source, config, self._assets, large, door=door), config)

    @contextmanager
    def stub(self) -> Iterator[str]:
        """The same deployments around stub encoders."""
        with self._started() as config:
            large = serve.deployment(name="large")(LargeStub).options(**deployment_options(config.large, config))
            door = serve.deployment(name="door")(DoorWithStub)
            app = build_door(
                self._source,
                config,
                self._assets,
                large.bind(self._source, config.large, self._assets, config.feedback, config.limits),
                door=door,
            )
            yield start(app, config)

    @contextmanager
    def echo(self) -> Iterator[str]:
        """FastAPI and a batch in one deployment, with the door's own limits."""
        with self._started() as config:
            options = deployment_options(config, config)
            yield start(Echo.options(**options).bind(), config)

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
