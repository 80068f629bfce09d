"""Every use of what Ray keeps to itself, its error texts included; a test of each fails when a new Ray changes it.

Ray is imported by the functions that need it: `kcm --help` and the workers import this module too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.serve._private.client import ServeControllerClient

# Loggers that tell a submitter about every upload.
JOB_LOGGERS = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
_KCM_ERROR = re.compile(r"^\s*kcm\.errors\.\w+: (.+)$", re.MULTILINE)
_JOB_LOGS = ", last available logs"
_BIND_FAILURE = "Failed to bind"


@contextmanager
def loopback_kept() -> Iterator[None]:
    """Let Ray take 127.0.0.1 as it stands, as it does where it knows no clusters of several machines.

    Else it puts the machine's outward address in its place, and every process of a local cluster, of which some ask
    for no token, listens on all interfaces.
    """
    from ray._private import ray_constants

    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def reread_authentication() -> None:
    """Let Ray see the environment's authentication settings, which it reads once, when it is imported."""
    from ray._raylet import AuthenticationTokenLoader, Config

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def serve_client(required: bool = True) -> ServeControllerClient | None:
    """What `serve deploy` goes through; Serve's public functions take no file.

    Where Serve does not run: RayServeException, or None without `required`.
    """
    from ray.serve.context import _get_global_client

    return _get_global_client(raise_if_no_controller_running=required)


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
    """The message of the KcmError that a worker raised, from the traceback in Ray's error; None where there is none.

    Ray Data keeps no more of an exception than this text.
    """
    messages = _KCM_ERROR.findall(str(error))
    return messages[-1] if messages else None
