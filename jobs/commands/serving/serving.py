"""Serving: bundle, cluster, and the service until it is interrupted."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml
from pydantic import Field

from jobs.commands.serving.start import service_folder
from kcm.assets import default_assets
from kcm.bundle.models import FrozenModels
from kcm.config import Config
from kcm.errors import ConfigError, KcmError
from kcm.large import UpstreamConfig
from pipelines._ray_private import end_serve
from pipelines.cluster.config import ClusterConfig
from pipelines.cluster.connection import connected
from pipelines.serve.config import ServeConfig, log_url
from pipelines.serve.deploy.deployment import deploy, deployment_file
from pipelines.serve.deploy.environment import prepare_environment
from pipelines.serve.release import Release
from pipelines.served_run import ServedRun


class Site(Config):
    """Settings of a service."""

    serve: ServeConfig = ServeConfig()
    cluster: ClusterConfig = ClusterConfig()
    assets_path: Path = Field(default_factory=default_assets)
    cluster_folder: Path | None = None  # where `kcm promote` finds the local cluster

    @classmethod
    def of(cls, config: ServedRun) -> Site:
        """The settings of a run's configuration."""
        named = {
            "application": config.application,
            "costs": config.serve.costs or config.costs,
        }
        site = cls(
            serve=config.serve.model_copy(update=named),
            cluster=config.cluster,
            assets_path=config.assets_path,
            cluster_folder=service_folder(config.storage_folder, config.name),
        )
        if config.large.upstream is not None:
            site = site.with_upstream(config.large.upstream)
        return site.with_feedback_in(config.storage_folder)

    def with_upstream(self, upstream: UpstreamConfig) -> Site:
        """A copy that allows bundles this server, unless its address is configured already."""
        large = self.serve.large
        if upstream.base_url in {each.base_url for each in large.upstreams}:
            return self
        large = large.model_copy(update={"upstreams": (*large.upstreams, upstream)})
        return self.model_copy(update={"serve": self.serve.model_copy(update={"large": large})})

    def with_feedback_in(self, folder: Path) -> Site:
        """A copy with a feedback log in this folder, unless another is configured."""
        feedback = self.serve.feedback
        if feedback.url is not None:
            return self
        url = log_url(self.serve, folder)
        serve = self.serve.model_copy(update={"feedback": feedback.model_copy(update={"url": url})})
        return self.model_copy(update={"serve": serve})


def loads(release: Release) -> str:
    """What a service of this version loads before it answers, for a person who waits."""
    models = FrozenModels.read_models(release.bundle)
    return f"loading {release.version}: encoder {models.encoder.name}, large model {models.large.location}"


@contextmanager
def serving(release: Release, site: Site) -> Iterator[str]:
    """The URL of the ready cascade, which runs within the block; the release has passed `require_servable`."""
    prepare_environment(site.serve.num_replicas)
    with connected(site.cluster.with_room_for(site.serve.reserved_cpus), site.cluster_folder):
        url = deploy(release, site.serve, site.assets_path)
        try:
            yield url
        finally:
            end_serve()


def write_deployment(file: Path, release: Release, site: Site) -> None:
    """Write the file for `serve deploy`; the release has passed `require_servable`.

    Raises ConfigError for a log that its replicas cannot share, before anything is written.
    """
    _require_shared_log(site.serve)
    content = yaml.safe_dump(deployment_file(release, site.serve, site.assets_path), sort_keys=False)
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
    # Or the end of this process would look through all that it has imported, for half a second. Nothing is collected: a
    # Ctrl-C in one of a collection's callbacks is lost.
    gc.freeze()
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
