"""Builds, starts and stops the served cascade."""

from __future__ import annotations

import ipaddress
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve import Application
from ray.serve.config import BackpressureConfig, HTTPOptions, ProxyLocation
from ray.serve.schema import LoggingConfig

from kcm.bundle import Bundle
from kcm.cascade.runtime import require_models
from kcm.errors import ArtefactError, KcmError
from kcm.large import RecordedConfig
from pipelines.serve.config import ReplicaConfig, ServeConfig
from pipelines.serve.door import Door
from pipelines.serve.large import Large

APP_NAME = "kcm"


def build_app(bundle_folder: Path, config: ServeConfig, assets_dir: Path, version: str) -> Application:
    """The cascade of a bundle as a Ray Serve application; `version` is what clients are told.

    Raises ArtefactError, before anything is started, for a damaged bundle and for models that are not its own.
    """
    bundle = Bundle.read(bundle_folder)
    if isinstance(bundle.large, RecordedConfig):
        raise ArtefactError(
            "recorded answers cannot be served: they are known for recorded rows alone",
            where=str(bundle_folder),
            mend="Train with a large model that answers new inputs, such as `classifier`",
        )
    require_models(bundle, assets_dir)
    options = deployment_options(config.large, config)
    large = Large.options(**options).bind(bundle_folder.absolute(), config.large, assets_dir.absolute())
    return build_door(bundle_folder, config, assets_dir, version, large)


def build_door(
    bundle_folder: Path, config: ServeConfig, assets_dir: Path, version: str, large: Application
) -> Application:
    """The door in front of any deployment whose `answer` maps a list of items to a list of large answers."""
    options = deployment_options(config, config)
    return Door.options(**options).bind(bundle_folder.absolute(), version, config, assets_dir.absolute(), large)


def deployment_options(replicas: ReplicaConfig, config: ServeConfig) -> dict[str, Any]:
    """Ray Serve's options of a deployment, every limit among them."""
    return {
        "num_replicas": replicas.num_replicas,
        "ray_actor_options": {"num_cpus": replicas.cpus, "num_gpus": replicas.gpus},
        "max_ongoing_requests": replicas.max_ongoing_requests,
        "max_queued_requests": replicas.max_queued_requests,
        "backpressure_config": BackpressureConfig(status_code=429, retry_after_s=config.retry_after_s),
        "graceful_shutdown_wait_loop_s": 0.5,
        "graceful_shutdown_timeout_s": config.timeout_s,
        "max_constructor_retry_count": 3,
    }


def start(app: Application, config: ServeConfig, *, ready_timeout_s: float = 120.0) -> str:
    """Run the application on the connected cluster and give its URL once it is ready.

    Raises KcmError when something else holds the port, or the application does not become ready in time.
    """
    _start_proxy(config)
    serve.run(app, name=APP_NAME, route_prefix="/", logging_config=_LOGGING)
    url = f"http://{_reachable(config.host)}:{config.port}"
    _wait_until_ready(url, ready_timeout_s)
    return url


def stop() -> None:
    """Let requests in flight finish, and stop serving."""
    serve.shutdown()


_LOGGING = LoggingConfig(enable_access_log=False)


def _start_proxy(config: ServeConfig) -> None:
    """Ray Serve's own proxy, on loopback unless the config says otherwise.

    HAProxy would let several times as many requests through, but its statistics and the replicas behind it listen on
    all interfaces; the throughput settings alone gain nothing where there are so few hops. Whoever guards the network
    otherwise sets RAY_SERVE_ENABLE_HA_PROXY and RAY_SERVE_THROUGHPUT_OPTIMIZED.
    """
    # A proxy on another node's loopback would be reached by nobody.
    location = ProxyLocation.HeadOnly if _is_loopback(config.host) else ProxyLocation.EveryNode
    # The door keeps its own deadline and answers; the proxy's only ends requests that never reached it.
    http_options = HTTPOptions(host=config.host, port=config.port, request_timeout_s=2 * config.timeout_s)
    try:
        serve.start(proxy_location=location, http_options=http_options, logging_config=_LOGGING)
    except RayError as error:
        serve.shutdown()
        if "Failed to bind" not in str(error):
            raise
        raise KcmError(
            "the address is taken", where=f"{config.host}:{config.port}", mend="Choose another with --set serve.port="
        ) from None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _reachable(host: str) -> str:
    """An address to call a server at that listens on `host`."""
    if host in ("0.0.0.0", "::"):
        return "127.0.0.1" if host == "0.0.0.0" else "[::1]"
    return f"[{host}]" if ":" in host else host


def _wait_until_ready(url: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        why = _not_ready(url)
        if why is None:
            return
        if time.monotonic() > deadline:
            raise KcmError(
                f"not ready after {timeout_s:g} s: {why}", where=url, mend="See whether something else holds the port"
            )
        time.sleep(0.1)


def _not_ready(url: str) -> str | None:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5):
            return None
    except urllib.error.HTTPError as error:
        return error.read().decode(errors="replace")
    except OSError as error:
        return str(error)
