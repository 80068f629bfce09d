"""Every use of private parts of Ray, its error texts included; a test of each fails when a new Ray changes it.

Ray is imported inside the functions: `kcm --help` and the workers import this module too.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.serve._private.client import ServeControllerClient

# Loggers that tell a submitter about every upload.
JOB_LOGGERS = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
_SERVE_DEFAULTS: dict[str, Any] = {"grpc_options": None, "global_tracing_config": None, "controller_options": None}
_BARE: dict[str, Any] = {"no_monitor": True, "include_log_monitor": False, "dashboard_agent_listen_port": 0}
logger = logging.getLogger("ray.serve")
_KCM_ERROR = re.compile(r"^\s*kcm\.errors\.\w+: (.+)$", re.MULTILINE)
_JOB_LOGS = ", last available logs"
_BIND_FAILURE = "Failed to bind"


@contextmanager
def loopback_kept() -> Iterator[None]:
    """Make Ray leave 127.0.0.1 unchanged within the block.

    Else Ray replaces it by the machine's outward address, and all processes of a local cluster listen on all
    interfaces, some of them without a token.
    """
    from ray._private import ray_constants

    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def bare_node() -> Iterator[None]:
    """Make Ray start a node within the block without its autoscaler, its forwarder of logs and its dashboard.

    A local cluster never grows, shows nobody its workers' logs and has no dashboard to look at. Ray starts the three
    nevertheless, one after the other, and ends them so: two seconds of CPU, and one of Ctrl-C. Its agent takes any free
    port: for its own, which another cluster on this machine has, it would try for three seconds. What it is made of
    comes with `ray[serve]`, and is not imported here to see whether it is there. And what waits for the node looks for
    it often, which Ray does once a second.
    """
    from ray._private import node, parameter, services, utils

    get_node: Any = services.get_node

    def get_node_at_once(gcs_address: str, node_id: str) -> Any:
        _wait_for_node(gcs_address, node_id)
        return get_node(gcs_address, node_id)

    ours: list[tuple[Any, str, Any]] = [
        (parameter, "RayParams", partial(parameter.RayParams, **_BARE)),
        (node.Node, "start_api_server", lambda *_, **__: None),
        (services, "get_node", get_node_at_once),
        (utils, "get_dashboard_dependency_error", lambda: None),
    ]
    theirs = [(owner, name, getattr(owner, name)) for owner, name, _ in ours]
    for owner, name, value in ours:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in theirs:
            setattr(owner, name, value)


@contextmanager
def trainers_without_cleaner() -> Iterator[None]:
    """Make trainers within the block without the process that removes what a dead controller of theirs has reserved.

    It asks the dashboard who is dead, and where there is none, as in a local cluster, it can do nothing; but each
    training waits twelve seconds at its end for its last question. With a dashboard nothing changes.
    """
    from ray._private.worker import get_dashboard_url
    from ray.train.v2._internal.execution.callback import ControllerCallback
    from ray.train.v2.api import data_parallel_trainer

    if get_dashboard_url():
        yield
        return
    trainers: Any = data_parallel_trainer
    theirs, trainers.PlacementGroupCleanerCallback = trainers.PlacementGroupCleanerCallback, ControllerCallback
    try:
        yield
    finally:
        trainers.PlacementGroupCleanerCallback = theirs


def _wait_for_node(gcs_address: str, node_id: str, timeout_s: float = 30.0) -> None:
    """Return once the node is registered, or the time is over: who asks for it then says what is wrong."""
    from ray._private import services, state

    nodes = state.GlobalState()
    nodes._initialize_global_state(services._get_gcs_client_options(gcs_address))
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and node_id not in {each["NodeID"] for each in nodes.node_table()}:
        time.sleep(0.02)


def reread_authentication() -> None:
    """Let Ray see the environment's authentication settings, which it reads once, when it is imported."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def serve_client(required: bool = True) -> ServeControllerClient | None:
    """The client behind `serve deploy`; the public functions of Serve accept no file.

    Where Serve does not run: RayServeException, or None without `required`.
    """
    from ray.serve.context import _get_global_client

    return _get_global_client(raise_if_no_controller_running=required)


def start_serve(**options: Any) -> None:
    """What `serve.start` does, without waiting for the proxies, which an application need not do to be deployed.

    Nothing where Serve runs already.
    """
    from ray.serve._private.api import _create_controller_and_proxy_refs
    from ray.serve._private.client import ServeControllerClient
    from ray.serve.context import _set_global_client

    if serve_client(required=False) is not None:
        return
    controller, _ = _create_controller_and_proxy_refs(**_SERVE_DEFAULTS, **options)
    _set_global_client(ServeControllerClient(controller))


def wait_for_proxies(timeout_s: float) -> None:
    """Return once the proxies of Serve listen. Raises GetTimeoutError, or the error of a proxy that cannot."""
    import ray

    client = serve_client()
    assert client is not None  # it raises where Serve does not run
    proxies = ray.get(client._controller.get_proxies.remote())
    ray.get([proxy.ready.remote() for proxy in proxies.values()], timeout=timeout_s)


def end_serve(timeout_s: float = 30.0) -> None:
    """What `serve.shutdown` does, without a line about retries: there, the controller's death is an answer, too.

    Serve's own call is retried without end, and Ray says so to the driver when the controller has ended itself.
    """
    import ray
    from ray.serve.context import _disconnect

    client = serve_client(required=False)
    if client is None:
        return
    client.shutdown_cached_handles()
    with suppress(ray.exceptions.RayActorError):
        ending = client._controller.graceful_shutdown.options(max_task_retries=0).remote()
        try:
            ray.get(ending, timeout=timeout_s)
        except ray.exceptions.GetTimeoutError:
            logger.warning("Ray Serve has not ended within %g s.", timeout_s)
    _disconnect()


def served_applications(client: ServeControllerClient) -> dict[str, Any]:
    """The configuration of each running application that was deployed from a file, by name."""
    import ray

    configs: dict[str, Any] = ray.get(client._controller.get_app_configs.remote())
    return configs


def is_bind_failure(error: Exception) -> bool:
    """Whether a proxy of Serve could not start because its address is taken."""
    return _BIND_FAILURE in str(error)


def job_failure(message: str) -> str:
    """Why a job failed, without the last lines of its log that Ray appends."""
    return message.partition(_JOB_LOGS)[0]


def kcm_error_text(error: Exception) -> str | None:
    """The message of a worker's KcmError, from the traceback in Ray's error; None where there is none.

    Ray Data keeps only this text of an exception.
    """
    messages = _KCM_ERROR.findall(str(error))
    return messages[-1] if messages else None
