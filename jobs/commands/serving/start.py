"""Starts the local cluster of `kcm serve` and its proxy while the rest of the program is still being imported.

Imports take this process seconds, Ray takes seconds of other processes: neither has to wait for the other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from kcm.config import parse_config, read_values
from kcm.errors import KcmError
from pipelines.cluster.config import ClusterConfig
from pipelines.cluster.connection import connected
from pipelines.serve.config import ServeConfig
from pipelines.serve.deploy.address import require_free_address
from pipelines.serve.deploy.environment import prepare_environment
from pipelines.store.storage import Storage

ResultT = TypeVar("ResultT")


@contextmanager
def cluster_beside(
    config: Path | None, overrides: Iterable[str], bundle: Path | None, prepare: Callable[[], ResultT]
) -> Iterator[ResultT]:
    """What `prepare` gives, which runs in a thread beside the start of the cluster that `config` describes.

    Only a local cluster is started, which ends with the block. `prepare` runs alone, and says what is wrong, where the
    configuration is wrong or names a cluster, or where neither `bundle` nor the storage is there. Raises what `prepare`
    raises, and KcmError where something else holds the port.
    """
    if start := _start_of(config, overrides):
        require_free_address(start.serve)
        prepare_environment(start.serve.num_replicas)
    with ThreadPoolExecutor(max_workers=1) as beside:
        prepared = beside.submit(prepare)
        if start is None or not (bundle or start.storage).is_dir():
            yield prepared.result()
            return
        with connected(start.cluster.with_room_for(start.serve.reserved_cpus), start.folder):
            from pipelines.serve.deploy.app import start_proxy  # Ray Serve, which `prepare` imports, too

            start_proxy(start.serve)
            yield prepared.result()


def service_folder(storage_folder: Path, name: str) -> Path:
    """Folder with address and token of the cluster of `kcm serve`, for other commands of its owner."""
    return storage_folder / "runs" / name / "service"


class _Start(NamedTuple):
    """What has to be known to start."""

    cluster: ClusterConfig
    serve: ServeConfig
    storage: Path
    folder: Path | None


def _start_of(config: Path | None, overrides: Iterable[str]) -> _Start | None:
    """None where there is nothing to start: whoever reads the whole configuration says what is wrong with it."""
    if os.environ.get("RAY_ADDRESS"):
        return None
    if config is None:
        return _Start(ClusterConfig(), ServeConfig(), Path(), None)
    try:
        values = read_values(config, overrides)
        cluster = parse_config(ClusterConfig, values.get("cluster") or {})
        serve = parse_config(ServeConfig, values.get("serve") or {})
        storage_folder = Storage.at(values.get("storage_path", "storage")).root
    except KcmError:
        return None
    if cluster.address or "name" not in values:
        return None
    return _Start(cluster, serve, storage_folder, service_folder(storage_folder, str(values["name"])))
