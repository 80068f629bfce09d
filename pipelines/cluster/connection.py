"""The Ray cluster of the stages: an existing cluster at an address, or a local cluster with its own token.

A client of a cluster runs code as its owner. Ray's default writes one token into the home folder, which then changes
how every later client connects; here the token is deleted when the cluster ends.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import AuthenticationError

from kcm.errors import ConfigError, KcmError
from pipelines._ray_private import loopback_kept, reread_authentication
from pipelines.cluster.config import ClusterConfig, address_of, is_connected, require_room

LISTENER_TIMEOUT_S = 10.0
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))  # with empty settings, RFC 9113 3.4
_FRAME_BYTES, _TYPE, _SETTINGS = 9, 3, 4  # of an HTTP/2 frame's head: its length, the place of its type, the type
MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


@contextmanager
def settings(values: Mapping[str, str]) -> Iterator[None]:
    """Set these environment variables of Ray's authentication within the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    reread_authentication()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        reread_authentication()


@contextmanager
def local_token() -> Iterator[None]:
    """Token authentication for the local cluster that starts in the block.

    The token is a new one, in a temporary folder of mode 700 that is deleted at the end; or the user's own, from
    RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH. A user's RAY_AUTH_MODE stays as it is.
    """
    values = {} if os.environ.get(MODE) else {MODE: "token"}
    with tempfile.TemporaryDirectory(prefix="kcm-cluster-") as folder:
        if values and not (os.environ.get(TOKEN) or os.environ.get(TOKEN_PATH)):
            file = Path(folder, "token")
            file.touch(mode=0o600)
            file.write_text(secrets.token_hex(32))
            values[TOKEN_PATH] = str(file)
        with settings(values):
            yield


MIB = 2**20
OBJECT_STORE_MIB = 256  # of a local cluster; what does not fit is spilled to disk


def prepare_environment() -> None:
    """Environment variables for Ray's processes; the user's own values win."""
    for name, value in {
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # saves 4 s at every start of a trainer
        "RAY_BACKEND_LOG_LEVEL": "fatal",  # Ray's C++ side warns on the terminal about its own actors
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C must stop the run, not end a search early as if it were complete
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
    }.items():
        os.environ.setdefault(name, value)


@contextmanager
def connected(config: ClusterConfig) -> Iterator[None]:
    """A connection to the cluster within the block; an open connection is left open.

    A local cluster requires its own token and listens only on loopback.
    """
    if is_connected():
        if config.gpus_per_worker:
            require_gpus(config)
        yield
        return
    prepare_environment()
    require_room(config)
    address = address_of(config)
    with ExitStack() as stack:
        if not address:
            stack.enter_context(local_token())
        with _silent_stderr(), handlers_restored(signal.SIGTERM):
            if address:
                join(address)
            else:
                _start(config)
        stack.callback(ray.shutdown)  # before the token is deleted
        if config.gpus_per_worker:
            require_gpus(config)
        yield


_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "WARNING"}


def join(address: str) -> None:
    """Connect to an existing cluster.

    KcmError if no cluster answers (immediately if nothing listens there), if it requires another token, or if it runs
    another version of Ray or Python.
    """
    require_listener(address)
    try:
        with loopback_kept():
            ray.init(address=address, **_QUIET)
    except ConnectionError as error:  # something listens there; Ray hides that it wanted a token
        raise _absent(error, address, f"If it requires a token: {_TOKEN_HINT}") from error
    except AuthenticationError as error:
        raise refused(error, address) from error
    except RuntimeError as error:
        if "Version mismatch" not in str(error):
            raise
        line = " ".join(str(error).split())
        raise KcmError(line, where=address, hint="Start all nodes from one image") from error


def require_gpus(config: ClusterConfig) -> None:
    """Raise ConfigError if a fixed cluster has too few GPUs; print what a run on an autoscaling one waits for."""
    needed, present = config.fewest_workers * config.gpus_per_worker, ray.cluster_resources().get("GPU", 0)
    if present >= needed:
        return
    lacking = f"{config.fewest_workers} workers need {needed:g} GPUs, and the cluster has {present:g}"
    # Ray's cluster launcher and KubeRay name the group of every node; `ray start` alone does not.
    if not any("ray.io/node-group" in node["Labels"] for node in ray.nodes()):
        hint = "Lower it or cluster.num_workers, or add GPUs to the cluster"
        raise ConfigError(lacking, where="cluster.gpus_per_worker", hint=hint)
    print(f"{lacking}: waiting for its autoscaler to add some", file=sys.stderr)


def require_listener(address: str) -> None:
    """Raise KcmError if no gRPC server, such as Ray's, answers at HOST:PORT: Ray would retry for minutes.

    Any other address, such as `auto`, is left to Ray. With Ray's TLS, it is enough that something listens.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=LISTENER_TIMEOUT_S) as connection:
            if os.environ.get("RAY_USE_TLS", "0") == "0" and not _speaks_http2(connection):
                raise ConnectionError("something other than Ray listens there")
    except (OSError, OverflowError) as error:  # a port above 65535
        raise _absent(error, address) from error


_TOKEN_HINT = "Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to the file of its token"


def _absent(error: Exception, address: str, hint: str = "Start one, or drop the address") -> KcmError:
    return KcmError(f"no Ray cluster answers: {error}", where=address, hint=hint)


def _speaks_http2(connection: socket.socket) -> bool:
    """Whether the other side begins with an HTTP/2 settings frame, as every gRPC server does."""
    connection.sendall(_HELLO)
    head = b""
    while len(head) < _FRAME_BYTES and (part := connection.recv(_FRAME_BYTES - len(head))):
        head += part
    return len(head) == _FRAME_BYTES and head[_TYPE] == _SETTINGS


def refused(error: AuthenticationError, address: str) -> KcmError:
    """The error for a cluster that requires a token, if none or a wrong one was sent."""
    return KcmError(
        f"the Ray cluster refuses us: {str(error).splitlines()[0].partition('. ')[0]}",
        where=address,
        hint=_TOKEN_HINT,
    )


def _start(config: ClusterConfig) -> None:
    """Start a local cluster."""
    with loopback_kept():
        ray.init(
            # Without this, Ray would join any cluster on this machine, even another user's.
            address="local",
            num_cpus=config.num_cpus,
            object_store_memory=OBJECT_STORE_MIB * MIB,
            include_dashboard=True,  # Ray Train asks it which of its controllers are dead
            dashboard_host="127.0.0.1",
            _node_ip_address="127.0.0.1",
            **_QUIET,
        )


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Hide stderr while Ray starts: its C++ side announces its log level there. Errors are raised anyway."""
    terminal = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


@contextmanager
def handlers_restored(*signals: signal.Signals) -> Iterator[None]:
    """Restore the present handlers of `signals` after the block.

    They are set again even if Python sees no change: Ray's C++ side replaces the SIGTERM handler below Python.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers, also in Ray
        yield
        return
    handlers = {number: signal.getsignal(number) for number in signals}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
