"""Builds the served cascade, and starts it."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field
from ray import serve
from ray.exceptions import RayError
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, BackpressureConfig, HTTPOptions, ProxyLocation
from ray.serve.schema import LoggingConfig

from kcm.bundle.models import FrozenModels, require_models
from kcm.config import Config, parse_config
from kcm.errors import ArtefactError, ConfigError, KcmError
from pipelines._ray_private import end_serve, is_bind_failure, start_serve, wait_for_proxies
from pipelines.serve.cascade.models.encoder import EncoderReplica
from pipelines.serve.cascade.models.large import Large, budget_store
from pipelines.serve.config import ReplicaConfig, ServeConfig
from pipelines.serve.deploy.address import address_taken, url_of
from pipelines.serve.deploy.door import Door
from pipelines.serve.http.keys import Keys
from pipelines.serve.release import Release

APP_NAME = "kcm"


class AppConfig(Config):
    """The arguments of `application`; its paths lie on storage that every node sees."""

    bundle: Path
    version: str | None = Field(default=None, description="What clients are told; the bundle's digest without one.")
    assets_path: Path
    serve: ServeConfig = ServeConfig()
    checked: bool = Field(
        default=False, description="Whether who deploys has done what `require_servable` does, over the same files."
    )

    @property
    def release(self) -> Release:
        """The version to start with. Raises ArtefactError where the folder holds no bundle."""
        version = self.version or FrozenModels.read_models(self.bundle).digest[:12]
        return Release(version=version, bundle=self.bundle.absolute())


def application(arguments: dict[str, Any]) -> Application:
    """Ray Serve's entry point for deployments by file: `import_path: pipelines.serve.deploy.app:application`."""
    config = parse_config(AppConfig, arguments, where="args of the application")
    return build_app(config.release, config.serve, config.assets_path, checked=config.checked)


def build_app(release: Release, config: ServeConfig, assets_dir: Path, *, checked: bool = False) -> Application:
    """The cascade of a bundle as a Ray Serve application.

    Raises what `require_servable` raises, before anything is started, unless that was `checked`.
    """
    if not checked:
        require_servable(release, config, assets_dir)
    given = config.large, assets_dir.absolute(), config.feedback, config.limits
    large = _bound(Large, large_options(config), release, *given)
    return build_door(release, config, assets_dir, large, encoder=_encoder(release, config, assets_dir))


def _encoder(release: Release, config: ServeConfig, assets_dir: Path) -> Application | None:
    """The encoder's deployment, where it is not the door that encodes."""
    if config.encoder is None:
        return None
    options = deployment_options(config.encoder, config)
    return _bound(EncoderReplica, options, release, config.encoder, assets_dir.absolute())


def require_servable(release: Release, config: ServeConfig, assets_dir: Path) -> None:
    """Raise ArtefactError for a damaged bundle and for models that are not its own; hashes of files are taken once.

    Raises ConfigError for keys that cannot be read and for audits without a log.
    """
    if config.audit.share and not config.feedback.url:
        raise ConfigError(
            f"audit.share = {config.audit.share}, but there is no log that an audit could be drawn in",
            where="serve.feedback.url",
            hint="Set it, such as sqlite:////absolute/path.db",
        )
    bundle = FrozenModels.read_models(release.bundle)
    if not bundle.large.servable:
        raise ArtefactError(
            "recorded answers cannot be served: they are known for recorded rows alone",
            where=str(release.bundle),
            hint="Train with a large model that answers new inputs, such as `classifier`",
        )
    require_models(bundle, assets_dir, config.large.upstreams)
    budget_store(bundle.large.at(config.large.upstreams), config.feedback)
    if config.auth.keys_file:
        Keys(config.auth.keys_file)


def build_door(
    release: Release,
    config: ServeConfig,
    assets_dir: Path,
    large: Application,
    *,
    door: Any = Door,
    encoder: Application | None = None,
) -> Application:
    """The door in front of any deployment whose `answer` maps items and a release to a list of large answers."""
    return _bound(door, door_options(config), release, config, assets_dir.absolute(), large, encoder)


def _bound(deployment: Any, options: Mapping[str, Any], release: Release, *arguments: Any) -> Application:
    """A Deployment with its options and arguments. mypy takes a decorated class for the class that it was."""
    application: Application = deployment.options(**options, user_config=release.user_config).bind(*arguments)
    return application


def deployment_options(replicas: ReplicaConfig, config: ServeConfig) -> dict[str, Any]:
    """Ray Serve's options of a deployment, every limit among them."""
    return {
        "num_replicas": replicas.num_replicas,
        "ray_actor_options": {"num_cpus": replicas.cpus, "num_gpus": replicas.gpus},
        "max_ongoing_requests": replicas.max_ongoing_requests,
        "max_queued_requests": replicas.max_queued_requests,
        "backpressure_config": BackpressureConfig(status_code=429, retry_after_s=config.retry_after_s),
        "graceful_shutdown_wait_loop_s": 0.1,
        "graceful_shutdown_timeout_s": config.timeout_s,
        "max_constructor_retry_count": 3,
    }


def door_options(config: ServeConfig) -> dict[str, Any]:
    """Ray Serve's options of the door, which counts its requests itself (`pipelines.serve.http.middleware.room`).

    Ray's limits leave room for as many again: a request has to come in to be refused.
    """
    room = 2 * (config.max_ongoing_requests + config.max_queued_requests)
    return deployment_options(config, config) | {"max_ongoing_requests": room, "max_queued_requests": room}


def large_options(config: ServeConfig) -> dict[str, Any]:
    """Ray Serve's options of the large model's deployment, whose replicas may come and go.

    All that may wait is handed to a replica at once: its queue is bounded by time, which Ray's own does not know.
    """
    options, large = deployment_options(config.large, config), config.large
    options["max_ongoing_requests"] = large.max_ongoing_requests + large.max_queued_requests
    if large.min_replicas is None:
        return options
    scaling = AutoscalingConfig(
        min_replicas=large.min_replicas,
        max_replicas=options.pop("num_replicas"),
        target_ongoing_requests=large.max_ongoing_requests / 2,
        upscale_delay_s=0.0,  # escalations wait
        downscale_delay_s=large.idle_s,
    )
    return options | {"autoscaling_config": scaling}


def start(app: Application, config: ServeConfig, *, ready_timeout_s: float = 120.0) -> str:
    """Run the application on the connected cluster and give its URL once it is ready.

    Raises KcmError when something else holds the port, or the application does not become ready in time.
    """
    start_proxy(config)
    wait_for_proxy(config)
    serve.run(app, name=APP_NAME, route_prefix="/", logging_config=LOGGING)
    return wait_until_ready(config, ready_timeout_s)


# Our own line per request, in requestlog.py, takes the place of the access log.
LOGGING = LoggingConfig(encoding="JSON", enable_access_log=False)


def start_proxy(config: ServeConfig) -> None:
    """Start the cluster's proxy, HAProxy or Ray Serve's own, on loopback unless the config says otherwise.

    It does not wait for it: an application can be deployed meanwhile.
    """
    start_serve(
        proxy_location=proxy_location(config),
        http_options=HTTPOptions(**http_settings(config)),
        global_logging_config=LOGGING,
    )


def wait_for_proxy(config: ServeConfig, timeout_s: float = 60.0) -> None:
    """Return once the proxy listens. Where something else holds the port, Serve ends and KcmError is raised."""
    try:
        wait_for_proxies(timeout_s)
    except RayError as error:
        end_serve()
        if not is_bind_failure(error):
            raise
        raise address_taken(config) from None


def proxy_location(config: ServeConfig) -> ProxyLocation:
    """Where proxies run: on the head alone if they listen on loopback, which no other node can reach."""
    return ProxyLocation.HeadOnly if config.listens_on_loopback else ProxyLocation.EveryNode


def http_settings(config: ServeConfig) -> dict[str, Any]:
    """The proxy's options."""
    # The door keeps its own deadline and answers; the proxy's only ends requests that never reached it.
    return {"host": config.host, "port": config.port, "request_timeout_s": 2 * config.timeout_s}


def wait_until_ready(config: ServeConfig, timeout_s: float) -> str:
    """The URL of the application, once it is ready; KcmError when it fails, or is not ready in time."""
    url = url_of(config)
    deadline = time.monotonic() + timeout_s
    while why := _not_ready(url):
        application = serve.status().applications.get(APP_NAME)
        if application and application.status == "DEPLOY_FAILED":
            raise KcmError(f"the application failed: {' '.join(application.message.split())[-600:]}", where=url)
        if time.monotonic() > deadline:
            raise KcmError(
                f"not ready after {timeout_s:g} s: {why}", where=url, hint="See whether something else holds the port"
            )
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
