"""Builds the served cascade as an application of Ray Serve, writes the file that deploys it, and starts it."""

from __future__ import annotations

import errno
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, BackpressureConfig, HTTPOptions, ProxyLocation
from ray.serve.schema import LoggingConfig

from kcm.assets.resolve import AssetsFolder, assets_place
from kcm.bundle.frozen_models import FrozenModels, require_models
from kcm.config import Config, parse_config
from kcm.errors import ArtefactError, ConfigError, KcmError
from pipelines.serve.cascade.models.large import Large, budget_store
from pipelines.serve.config import RETRY_AFTER_S, ReplicaConfig, ServeConfig
from pipelines.serve.deploy.http_replica import HTTP_REPLICA, HttpReplica
from pipelines.serve.http.keys import Keys
from pipelines.serve.release import Release
from pipelines.serve.sources import ChampionSource, FixedSource, Source, registered_bundle
from pipelines.store.artefact import ArtefactStore

APP_NAME = "kcm"
IDLE_S = 300.0  # an idle replica above min_replicas stops after this time
UNREAD = 2048  # requests of an HTTP replica whose bodies have not arrived, slow ones included
IMPORT_PATH = "pipelines.serve.deploy.app:application"
LOGGING = LoggingConfig(encoding="JSON", enable_access_log=False)  # the service itself writes a line per request


class AppConfig(Config):
    """The arguments of `application`; its paths are on storage that every node sees.

    Either `storage_path` and `name`, to follow the run's champion, or a fixed version: `storage_path` and `artefact`,
    or `bundle`.
    """

    storage_path: str | None = Field(default=None, description="Storage of the run, a folder or the URI of a bucket.")
    name: str | None = Field(default=None, description="Name of the run, whose champion is followed.")
    artefact: str | None = Field(default=None, description="Artefact of stage `register` that is served permanently.")
    bundle: Path | None = Field(default=None, description="Folder of the bundle that is served permanently.")
    version: str | None = Field(
        default=None, description="The version name for clients; by default the bundle's digest."
    )
    assets_path: AssetsFolder
    serve: ServeConfig = ServeConfig()

    @model_validator(mode="after")
    def _one_model(self) -> AppConfig:
        if [self.name, self.artefact, self.bundle].count(None) != 2 or (self.storage_path is None) != bool(self.bundle):
            raise ValueError(
                "give storage_path with the name of a run or with one of its artefacts, or give only bundle"
            )
        return self

    @property
    def settings(self) -> ServeConfig:
        """The configuration of the service; decisions are written under the run's name, under which the log is read."""
        settings = self.serve
        if settings.application or self.name is None:
            return settings
        return settings.model_copy(update={"application": self.name})

    @property
    def source(self) -> Source:
        """The source of the release. Raises ArtefactError if `bundle` holds none."""
        if self.storage_path is not None and self.name is not None:
            return ChampionSource(self.storage_path, self.name)
        if self.storage_path is not None and self.artefact is not None:
            bundle = registered_bundle(ArtefactStore(self.storage_path), self.artefact)
        else:
            assert self.bundle is not None
            bundle = self.bundle.absolute()
        version = self.version or FrozenModels.read_models(bundle).digest[:12]
        return FixedSource(Release(version=version, bundle=bundle, artefact=self.artefact), self.storage_path)


def application(arguments: dict[str, Any]) -> Application:
    """Ray Serve's entry point for deployments by file: `import_path: pipelines.serve.deploy.app:application`."""
    config = parse_config(AppConfig, arguments, where="args of the application")
    source = config.source
    require_servable(source.first(), config.settings, config.assets_path)
    require_keys(config.serve)
    return build_app(source, config.settings, config.assets_path)


def build_app(source: Source, config: ServeConfig, assets_dir: Path) -> Application:
    """The cascade as a Ray Serve application; its release has passed `require_servable`."""
    arguments = source, config.large, assets_dir.absolute(), config.feedback
    large = _bound(Large, large_options(config), *arguments)
    return build_http_replica(source, config, assets_dir, large)


def require_servable(release: Release, config: ServeConfig, assets_dir: Path) -> None:
    """Raise ArtefactError for a damaged bundle or for other models than its own; files are hashed once.

    Raises ConfigError for audits or a budget without a log.
    """
    if config.audit.share and not config.feedback.url:
        raise ConfigError(
            f"audit.share is {config.audit.share}, but there is no log for audits",
            where="serve.feedback.url",
            hint="Set it, such as sqlite:////absolute/path.db",
        )
    bundle = FrozenModels.read_models(release.bundle)
    if bundle.large.is_recorded:
        raise ArtefactError(
            "recorded answers cannot be served: they exist only for recorded rows",
            where=str(release.bundle),
            hint="Train with a large model that answers new inputs, such as `classifier`",
        )
    require_models(bundle, assets_dir, config.large.upstreams)
    budget_store(bundle.large.at(config.large.upstreams).upstream, config.feedback)


def require_keys(config: ServeConfig) -> None:
    """Raise ConfigError for a file of keys that this node cannot read."""
    if config.auth.keys_file:
        Keys(config.auth.keys_file)


def void_release(release: Release, config: ServeConfig) -> str | None:
    """Why the certificate of a release does not hold in this service; None if it holds."""
    return FrozenModels.read_models(release.bundle).void_on(*config.devices)


def build_http_replica(
    source: Source,
    config: ServeConfig,
    assets_dir: Path,
    large: Application,
    *,
    http_replica: Any = HttpReplica,
) -> Application:
    """The HTTP replicas before any deployment whose `answer` maps items and a release to large answers."""
    return _bound(http_replica, http_replica_options(config), source, config, assets_dir.absolute(), large)


def _bound(deployment: Any, options: Mapping[str, Any], *arguments: Any) -> Application:
    """A Deployment with its options and arguments. mypy takes a decorated class for the class that it was."""
    return deployment.options(**options).bind(*arguments)


def deployment_options(replicas: ReplicaConfig, config: ServeConfig) -> dict[str, Any]:
    """Ray Serve's options of a deployment, every limit included; with `min_replicas` their number follows the load."""
    places = {"label_selector": config.label_selector} if config.label_selector else {}
    if replicas.min_replicas is None:
        number: dict[str, Any] = {"num_replicas": replicas.num_replicas}
    else:
        scaling = AutoscalingConfig(
            min_replicas=replicas.min_replicas,
            max_replicas=replicas.num_replicas,
            target_ongoing_requests=replicas.max_ongoing_requests / 2,
            upscale_delay_s=0.0,  # requests wait
            downscale_delay_s=IDLE_S,
        )
        number = {"autoscaling_config": scaling}
    return number | {
        "ray_actor_options": {"num_cpus": replicas.cpus, "num_gpus": replicas.gpus, **places},
        "max_ongoing_requests": replicas.max_ongoing_requests,
        "max_queued_requests": replicas.max_queued_requests,
        "backpressure_config": BackpressureConfig(status_code=429, retry_after_s=RETRY_AFTER_S),
        "graceful_shutdown_wait_loop_s": 0.1,
        "graceful_shutdown_timeout_s": config.timeout_s,
        "max_constructor_retry_count": 3,
    }


def http_replica_options(config: ServeConfig) -> dict[str, Any]:
    """Ray Serve's options of the HTTP replica, which counts its requests itself (`RequestLimit` of the middleware).

    Ray's limits leave room for as many again, and for `UNREAD` requests whose bodies have not arrived: a request has to
    come in to be refused.
    """
    room = 2 * (config.max_ongoing_requests + config.max_queued_requests) + UNREAD
    return deployment_options(config, config) | {"max_ongoing_requests": room, "max_queued_requests": room}


def large_options(config: ServeConfig) -> dict[str, Any]:
    """Ray Serve's options of the large model's deployment.

    All waiting requests are handed to a replica immediately: its queue is bounded by time, and Ray's queue is not.
    """
    options, large = deployment_options(config.large, config), config.large
    return options | {"max_ongoing_requests": large.max_ongoing_requests + large.max_queued_requests}


def deployment_file(source: Source, config: ServeConfig, assets_dir: Path) -> dict[str, Any]:
    """The content of a file for `serve deploy`.

    With several nodes, each has at most one HTTP replica. So the replica of a lost node waits for the next node: on
    another node it would be a second one, and Ray Serve does not move it back when the lost node returns.
    """
    location = _proxy_location(config)
    one_per_node = [{"name": HTTP_REPLICA, "max_replicas_per_node": 1}] if location is ProxyLocation.EveryNode else []
    if isinstance(source, ChampionSource):
        model: dict[str, str | None] = {"storage_path": source.storage_path, "name": source.name}
    elif source.storage_path and source.release.artefact:
        release = source.release
        model = {"storage_path": source.storage_path, "artefact": release.artefact, "version": release.version}
    else:
        model = {"bundle": str(source.release.bundle), "version": source.release.version}
    return {
        "proxy_location": location.value,
        "http_options": _http_options(config),
        "logging_config": {"encoding": LOGGING.encoding, "enable_access_log": LOGGING.enable_access_log},
        "applications": [
            {
                "name": APP_NAME,
                "route_prefix": "/",
                "import_path": IMPORT_PATH,
                "deployments": one_per_node,
                "args": model
                | {
                    "assets_path": assets_place(assets_dir.absolute()),
                    "serve": config.model_dump(mode="json", exclude_unset=True),
                },
            }
        ],
    }


def _proxy_location(config: ServeConfig) -> ProxyLocation:
    """The nodes with proxies: only the head if they listen on loopback, which no other node can reach."""
    return ProxyLocation.HeadOnly if config.listens_on_loopback else ProxyLocation.EveryNode


def _http_options(config: ServeConfig) -> dict[str, Any]:
    # The HTTP replica has its own deadline; the proxy's deadline only ends requests that never reached a replica.
    return {"host": config.host, "port": config.port, "request_timeout_s": 2 * config.timeout_s}


def start(app: Application, config: ServeConfig, *, ready_timeout_s: float = 120.0) -> str:
    """Run the application on the connected cluster; returns its URL once it is ready.

    Raises KcmError, and leaves nothing running, if another process holds the port or the application is not ready in
    time.
    """
    if not serve.status().proxies:  # otherwise Serve itself listens there
        require_free_address(config)
    options = HTTPOptions(**_http_options(config))
    try:
        serve.start(proxy_location=_proxy_location(config), http_options=options, logging_config=LOGGING)
        serve.run(app, name=APP_NAME, route_prefix="/", logging_config=LOGGING)
        return _wait_until_ready(config, ready_timeout_s)
    except RuntimeError as error:  # Ray Serve raises this for an application that cannot be deployed
        serve.shutdown()
        raise KcmError(f"the application failed: {' '.join(str(error).split())[-600:]}", where=url_of(config)) from None
    except BaseException:
        serve.shutdown()
        raise


def require_free_address(config: ServeConfig) -> None:
    """Raise KcmError if another process on this machine already listens on the proxy's port."""
    family, kind, protocol, _, address = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # a socket that has just closed does not block the port
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise KcmError(
                    "the address is taken",
                    where=f"{config.host}:{config.port}",
                    hint="Choose another with --set serve.port=PORT",
                ) from None


def url_of(config: ServeConfig) -> str:
    """The URL of a service on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.host, config.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{config.port}"


def _wait_until_ready(config: ServeConfig, timeout_s: float) -> str:
    """The URL of the application once it is ready; KcmError if it is not ready in time."""
    url = url_of(config)
    deadline = time.monotonic() + timeout_s
    while reason := _not_ready(url):
        if time.monotonic() > deadline:
            raise KcmError(f"not ready after {timeout_s:g} s: {reason}", where=url)
        time.sleep(0.1)
    return url


def _not_ready(url: str) -> str | None:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5):
            return None
    except urllib.error.HTTPError as error:
        return error.read().decode(errors="replace")
    except OSError as error:
        return str(error)
