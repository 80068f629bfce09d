"""The settings of a service: those of a run's configuration, or the defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from jobs.servers import known_servers
from kcm.assets import default_assets
from kcm.config import Config
from pipelines.cluster.config import ClusterConfig
from pipelines.config import RunConfig
from pipelines.serve.config import ServeConfig, log_url


class ServiceSettings(Config):
    """Settings of a service."""

    serve: ServeConfig = ServeConfig()
    cluster: ClusterConfig = ClusterConfig()
    assets_path: Path = Field(default_factory=default_assets)

    @classmethod
    def of(cls, config: RunConfig | None, log_folder: Path = Path()) -> ServiceSettings:
        """The settings of a run's configuration, or the defaults.

        A log for which no place is configured lies in the run's storage, or in `log_folder`. The server that the run
        asks may be asked while serving, unless its address is configured already. Without a configuration the servers
        may be asked that `kcm label` has asked before.
        """
        settings, changes = cls(), dict[str, Any]()
        if config is not None:
            settings = cls(serve=config.serve, cluster=config.cluster, assets_path=config.assets_path)
            changes = {"application": config.application, "costs": config.serve.costs or config.costs}
            large, upstream = config.serve.large, config.large.upstream
            if upstream and upstream.base_url not in {known.base_url for known in large.upstreams}:
                changes["large"] = large.model_copy(update={"upstreams": (*large.upstreams, upstream)})
            log_folder = config.storage_folder
        else:
            changes = {"large": settings.serve.large.model_copy(update={"upstreams": known_servers()})}
        feedback = settings.serve.feedback
        if feedback.url is None:
            changes["feedback"] = feedback.model_copy(update={"url": log_url(settings.serve, log_folder)})
        return settings.model_copy(update={"serve": settings.serve.model_copy(update=changes)})
