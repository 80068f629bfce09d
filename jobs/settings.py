"""The settings of a service: from a run's configuration, or the defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from jobs.servers import known_servers
from kcm.assets.resolve import default_assets
from kcm.config import Config
from pipelines.cluster.config import ClusterConfig
from pipelines.config import RunConfig
from pipelines.serve.config import ServeConfig, log_url


class ServiceSettings(Config):
    """Settings of a service; a file with only these sections serves a bundle or a registered model."""

    serve: ServeConfig = ServeConfig()
    cluster: ClusterConfig = ClusterConfig()
    assets_path: Path = Field(default_factory=default_assets)

    @classmethod
    def of(
        cls, config: RunConfig | None, log_folder: Path = Path(), own: ServiceSettings | None = None
    ) -> ServiceSettings:
        """The settings of a run's configuration, or `own`, by default all defaults.

        Without a configured place the log is in the run's storage, or in `log_folder`. The service may use the run's
        server, unless its address is configured already. Without a run it may use servers that `kcm label` has used
        before.
        """
        settings, changes, servers = own or cls(), dict[str, Any](), known_servers()
        if config is not None:
            settings = cls(serve=config.serve, cluster=config.cluster, assets_path=config.assets_path)
            changes = {"application": config.application, "costs": config.serve.costs or config.costs}
            servers = config.upstreams
            log_folder = config.storage_folder
        serve = settings.serve
        configured_urls = {upstream.base_url for upstream in serve.large.upstreams}
        if servers := tuple(upstream for upstream in servers if upstream.base_url not in configured_urls):
            changes["large"] = serve.large.model_copy(update={"upstreams": (*serve.large.upstreams, *servers)})
        if serve.feedback.url is None:
            changes["feedback"] = serve.feedback.model_copy(update={"url": log_url(serve, log_folder)})
        return cls(serve=serve.model_copy(update=changes), cluster=settings.cluster, assets_path=settings.assets_path)
