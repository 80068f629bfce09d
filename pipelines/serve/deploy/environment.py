"""The environment in which a local cluster that serves is started; Ray Serve need not be imported for it."""

from __future__ import annotations

import os

from pipelines.serve.deploy import client_headers
from pipelines.serve.deploy.haproxy import haproxy_environment


def prepare_environment(num_doors: int | None = None) -> None:
    """Settings that a local cluster which serves reads when it starts; a person's own settings win.

    Where it is known that there is one door, it stops at once: another that could take its requests over is not there.
    """
    settings = {
        # Ray runs its workers at niceness 15, below every other process: a job beside the service would stall it.
        "RAY_worker_niceness": "0",
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": client_headers.IMPORT_PATH,
        # Importing Ray Serve alone takes a proxy two seconds of CPU: on a busy machine Ray's 5 s end the whole start.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    }
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") != "0":
        settings |= haproxy_environment()
    if num_doors == 1:
        settings["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"] = "0"
    for name, value in settings.items():
        os.environ.setdefault(name, value)
