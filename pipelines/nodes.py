"""The nodes of a cluster: their versions, clocks and access to the storage."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from kcm.errors import ArtefactError, ConfigError, KcmError
from pipelines.store.files import Files

ANSWER_S = 120.0  # how long a node may take to start a process that imports this module
_PACKAGES = ("kcm-cascade", "ray")
_WITNESSES = ".nodes"
# Ray reads these on each node. If they differ, a part of the service behaves differently without any message.
_SWITCHES = ("RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH")
_REDIS = "RAY_REDIS_ADDRESS"  # set only on the head
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class NodeReport:
    """A node's report on itself; `storage_fault` says why it cannot use the storage, None if it can."""

    name: str
    versions: Mapping[str, str]
    skew_s: float  # difference of its clock from the storage's, in seconds
    free_gib: float  # free space on the disk of its temporary files
    storage_fault: str | None
    switches: Mapping[str, str]  # the environment variables that decide how a cluster serves


def on_every_node(function: Callable[[], ResultT]) -> dict[str, ResultT | KcmError]:
    """The results of a function on every living node of the connected cluster, by node name.

    Without a cluster it runs in this process. If a node cannot run it, or does not answer in time, its result is a
    KcmError with the reason.
    """
    if not ray.is_initialized():
        try:
            return {socket.gethostname(): function()}
        except KcmError as error:
            return {socket.gethostname(): error}
    answers: dict[str, Any] = {}
    for node in ray.nodes():
        if node["Alive"]:
            strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            answers[name] = _call.options(scheduling_strategy=strategy).remote(function)
    deadline = time.monotonic() + ANSWER_S
    return {name: _answer(name, answer, deadline) for name, answer in sorted(answers.items())}


@ray.remote(num_cpus=0, max_retries=0)
def _call(function: Callable[[], Any]) -> Any:
    return function()


def _answer(name: str, answer: ray.ObjectRef[ResultT], deadline: float) -> ResultT | KcmError:
    try:
        return ray.get(answer, timeout=max(0.0, deadline - time.monotonic()))
    except GetTimeoutError:
        return KcmError("the node does not answer", where=name, hint="Read its log below /tmp/ray, or stop the node")
    except RayError as error:
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, KcmError):
            return cause
        line = next((line for line in reversed(str(cause).splitlines()) if line.strip()), type(cause).__name__)
        return KcmError(f"the node cannot run kcm: {line.strip()}", where=name, hint="Start all nodes from one image")


def node_reports(storage: Files) -> list[NodeReport]:
    """The reports of all nodes. Each node reads a file of this process and writes its own file.

    Raises KcmError for a node that does not answer.
    """
    witness = f"{_WITNESSES}/{uuid.uuid4().hex}"
    storage.create(witness, b"")
    try:
        answers = on_every_node(partial(_report, storage, witness))
    finally:
        storage.delete([stat.name for stat in storage.list(_WITNESSES) if stat.name.startswith(witness)])
    for answer in answers.values():
        if isinstance(answer, KcmError):
            raise answer
    return [answer for answer in answers.values() if isinstance(answer, NodeReport)]


def _report(storage: Files, witness: str) -> NodeReport:
    skew_s, fault = 0.0, None
    try:
        skew_s = _use(storage, witness)
    except FileNotFoundError:
        fault = "it does not see the file that the driver wrote"
    except (OSError, ArtefactError) as error:
        fault = str(error)
    free_gib = shutil.disk_usage(tempfile.gettempdir()).free / 2**30
    switches = {name: os.environ[name] for name in (*_SWITCHES, _REDIS) if name in os.environ}
    return NodeReport(socket.gethostname(), versions_here(), skew_s, free_gib, fault, switches)


def _use(storage: Files, witness: str) -> float:
    """Read a file that the driver wrote, create one, and compare this clock with its time, in seconds."""
    own_witness = f"{witness}-{uuid.uuid4().hex}"
    storage.read(witness)
    if not storage.create(own_witness, b"") or storage.create(own_witness, b""):
        raise ArtefactError("it created a file that existed", hint="Use a bucket with conditional puts")
    return next(time.time() - stat.modified for stat in storage.list(_WITNESSES) if stat.name == own_witness)


def versions_here() -> dict[str, str]:
    """The versions that must be the same on all nodes."""
    versions = {"Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "none"
    return versions


def require_alike(reports: Sequence[NodeReport]) -> str:
    """The versions on all nodes. ConfigError, naming the nodes, if any differ from this process."""
    driver_versions = versions_here()
    differences = [
        f"{report.name} has {package} {report.versions.get(package)}, not {driver_versions[package]}"
        for report in reports
        for package in driver_versions
        if report.versions.get(package) != driver_versions[package]
    ]
    if differences:
        hint = "Start all nodes, and the driver, from one image"
        raise ConfigError(f"the nodes differ: {'; '.join(differences)}", where="cluster", hint=hint)
    return ", ".join(f"{package} {number}" for package, number in driver_versions.items())


def require_service(reports: Sequence[NodeReport]) -> str:
    """How the cluster serves. ConfigError if nodes have different switches, or Redis does not answer."""
    for name in _SWITCHES:
        values = {report.name: report.switches.get(name, "not set") for report in reports}
        if len(set(values.values())) > 1:
            listed = ", ".join(f"{node} {value}" for node, value in values.items())
            raise ConfigError(f"{name} differs: {listed}", where="cluster", hint="Start all nodes with the same one")
    proxy = "HAProxy" if reports[0].switches.get(_SWITCHES[0]) == "1" else "Ray's own proxy"
    redis = next((report.switches[_REDIS] for report in reports if _REDIS in report.switches), None)
    if redis is None:
        return f"{proxy} on each node; no Redis: a service ends with the head"
    first_address = redis.partition(",")[0].removeprefix("redis://").removeprefix("rediss://")
    host, _, port = first_address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        raise ConfigError(f"Redis, with the head's state, does not answer: {error}", where=redis) from None
    return f"{proxy} on each node; the head's state is in Redis"


def require_shared(reports: Sequence[NodeReport], storage: Files) -> None:
    """Raise ConfigError, naming the nodes, if any cannot use the storage."""
    faults = [f"{report.name}: {report.storage_fault}" for report in reports if report.storage_fault]
    if faults:
        hint = "Check their credentials" if storage.is_remote else "Name a bucket, or a folder that all nodes mount"
        raise ConfigError(f"not every node can use {storage.uri}: {'; '.join(faults)}", where="storage_path", hint=hint)


def require_nodes(storage: Files) -> None:
    """Raise KcmError if the nodes of the connected cluster cannot work on one storage together."""
    if sum(node["Alive"] for node in ray.nodes()) > 1:
        reports = node_reports(storage)
        require_alike(reports)
        require_shared(reports, storage)
