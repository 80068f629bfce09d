"""The nodes of a cluster: their versions and their access to the storage."""

from __future__ import annotations

import platform
import socket
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from kcm.errors import ArtefactError, ConfigError, KcmError
from pipelines.store.files import Files

ANSWER_S = 120.0  # how long a node may take to start a process that imports this module
_PACKAGES = ("kcm-cascade", "ray")
_WITNESSES = ".nodes"


@dataclass(frozen=True)
class NodeReport:
    """A node's report on itself; `storage_fault` says why it cannot use the storage, None if it can."""

    name: str
    versions: Mapping[str, str]
    storage_fault: str | None


def _on_every_node(function: Callable[[], NodeReport]) -> dict[str, NodeReport | KcmError]:
    """The results of a function on every living node of the connected cluster, by node name.

    Without a cluster it runs in this process. If a node cannot run it, or does not answer in time, its result is a
    KcmError with the reason.
    """
    if not ray.is_initialized():
        return {socket.gethostname(): function()}
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


def _answer(name: str, answer: ray.ObjectRef[NodeReport], deadline: float) -> NodeReport | KcmError:
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
        answers = _on_every_node(partial(_report, storage, witness))
    finally:
        storage.delete([stat.name for stat in storage.list(_WITNESSES) if stat.name.startswith(witness)])
    for answer in answers.values():
        if isinstance(answer, KcmError):
            raise answer
    return [answer for answer in answers.values() if isinstance(answer, NodeReport)]


def _report(storage: Files, witness: str) -> NodeReport:
    fault = None
    try:
        _use(storage, witness)
    except FileNotFoundError:
        fault = "it does not see the file that the driver wrote"
    except (OSError, ArtefactError) as error:
        fault = str(error)
    return NodeReport(socket.gethostname(), versions_here(), fault)


def _use(storage: Files, witness: str) -> None:
    """Read a file that the driver wrote, and create one. Raises ArtefactError if a creation replaces a file."""
    own_witness = f"{witness}-{uuid.uuid4().hex}"
    storage.read(witness)
    if not storage.create(own_witness, b"") or storage.create(own_witness, b""):
        raise ArtefactError("it created a file that existed", hint="Use a bucket with conditional puts")


def versions_here() -> dict[str, str]:
    """The versions that must be the same on all nodes."""
    versions = {"Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "none"
    return versions


def require_alike(reports: Sequence[NodeReport]) -> None:
    """Raise ConfigError, naming the nodes, if versions on any differ from this process."""
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
