"""A service on a cluster: its settings, the file that deploys it, and running it until it is interrupted."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml
from pydantic import Field
from ray import serve

from kcm.assets import default_assets
from kcm.bundle.models import FrozenModels
from kcm.config import Config
from kcm.errors import ConfigError, KcmError
from kcm.large import UpstreamConfig
from pipelines.cluster.config import ClusterConfig
from pipelines.cluster.connection import connected, starts_local
from pipelines.config import RunConfig
from pipelines.serve.config import ServeConfig, log_url
from pipelines.serve.deploy.app import APP_NAME, build_app, deployment_file, require_free_address, require_keys, start
from pipelines.serve.deploy.environment import prepare_environment
from pipelines.serve.release import Release
from pipelines.serve.sources import Source


class ServiceSettings(Config):
    """Settings of a service."""

    serve: ServeConfig = ServeConfig()
    cluster: ClusterConfig = ClusterConfig()
    assets_path: Path = Field(default_factory=default_assets)

    @classmethod
    def of(cls, config: RunConfig) -> ServiceSettings:
        """The settings of a run's configuration."""
        named = {"application": config.application, "costs": config.serve.costs or config.costs}
        settings = cls(
            serve=config.serve.model_copy(update=named), cluster=config.cluster, assets_path=config.assets_path
        )
        if config.large.upstream is not None:
            settings = settings.with_upstream(config.large.upstream)
        return settings.with_feedback_in(config.storage_folder)

    def with_upstream(self, upstream: UpstreamConfig) -> ServiceSettings:
        """A copy that allows bundles this server, unless its address is configured already."""
        large = self.serve.large
        if upstream.base_url in {known.base_url for known in large.upstreams}:
            return self
        large = large.model_copy(update={"upstreams": (*large.upstreams, upstream)})
        return self.model_copy(update={"serve": self.serve.model_copy(update={"large": large})})

    def with_feedback_in(self, folder: Path) -> ServiceSettings:
        """A copy with a feedback log in this folder, unless another is configured."""
        feedback = self.serve.feedback
        if feedback.url is not None:
            return self
        url = log_url(self.serve, folder)
        serve = self.serve.model_copy(update={"feedback": feedback.model_copy(update={"url": url})})
        return self.model_copy(update={"serve": serve})


def loading_message(release: Release) -> str:
    """What a service of this version loads before it answers, for a person who waits."""
    models = FrozenModels.read_models(release.bundle)
    return f"loading {release.version}: encoder {models.encoder.name}, large model {models.large.location}"


@contextmanager
def serving(source: Source, settings: ServiceSettings) -> Iterator[str]:
    """The URL of the ready cascade, which runs within the block; its release has passed `require_servable`."""
    require_keys(settings.serve)
    require_free_address(settings.serve)
    prepare_environment()
    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # it tells of every step
    cluster = settings.cluster.with_room_for(settings.serve.reserved_cpus)
    takes_serve_along = starts_local(cluster)
    with connected(cluster):
        url = start(build_app(source, settings.serve, settings.assets_path), settings.serve)
        try:
            yield url
        finally:
            serve.delete(APP_NAME)  # returns once the replicas have written what they hold
            if not takes_serve_along:  # where the cluster ends, too, Ray would tell a person of a task that failed
                serve.shutdown()


def write_deployment(file: Path, source: Source, settings: ServiceSettings) -> None:
    """Write the file for `serve deploy`; the release has passed `require_servable`.

    Raises ConfigError for a log that its replicas cannot share, before anything is written.
    """
    _require_shared_log(settings.serve)
    content = yaml.safe_dump(deployment_file(source, settings.serve, settings.assets_path), sort_keys=False)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
    except OSError as error:
        raise KcmError(f"cannot write the deployment: {error.strerror}", where=str(file)) from error


def _require_shared_log(config: ServeConfig) -> None:
    """Refuse SQLite for replicas that a cluster places on several machines: its file would be damaged."""
    if config.num_replicas == 1 or not (config.feedback.url or "").startswith("sqlite"):
        return
    raise ConfigError(
        f"SQLite cannot be written by {config.num_replicas} replicas on several machines",
        where="serve.feedback.url",
        hint="Name a PostgreSQL database, postgresql+psycopg://USER@HOST/NAME, or set serve.num_replicas to 1",
    )


def wait_for_interruption() -> None:
    """Return on Ctrl-C."""
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
