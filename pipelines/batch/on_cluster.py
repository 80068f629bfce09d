"""Run a function over many items on a Ray cluster.

Ray Data retries an item whose worker or node dies. Items and results are small: references to files, hashes, counts.
The process that works on an item reads its rows from the storage and writes its output to the storage.
"""

from __future__ import annotations

import logging
import pickle
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from kcm.errors import KcmError
from pipelines.cluster.config import ClusterConfig
from pipelines.cluster.connection import connected

RETRIES = 3
_TOLD = (KcmError, OSError)

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def map_with_tasks(function: Callable[[ItemT], ResultT], items: Sequence[ItemT]) -> Generator[ResultT]:
    """`map_items` of `pipelines.batch.mapping` on a cluster."""

    def apply(batch: pa.Table) -> pa.Table:
        return _apply(function, batch)

    return _on_ray_data(items, apply, num_cpus=1)


def map_with_actors(
    build: Callable[[], Callable[[ItemT], ResultT]],
    items: Sequence[ItemT],
    cluster: ClusterConfig,
    *,
    only_here: bool = False,
) -> Generator[ResultT]:
    """`map_with_actors` of `pipelines.batch.mapping` on a cluster."""
    return _on_ray_data(
        items,
        _Actor,
        fn_constructor_args=(build,),
        compute=ActorPoolStrategy(size=min(cluster.num_encoders, max(1, len(items)))),
        num_cpus=0 if cluster.gpus_per_worker or only_here else 1,
        num_gpus=cluster.gpus_per_worker,
        max_task_retries=RETRIES,  # otherwise, a row that kills its process would be retried for ever
        label_selector={"ray.io/node-id": ray.get_runtime_context().get_node_id()} if only_here else None,
    )


def map_connected(
    build: Callable[[], Callable[[ItemT], ResultT]],
    items: Sequence[ItemT],
    *,
    cluster: ClusterConfig,
    only_here: bool = False,
) -> Generator[ResultT]:
    """The same on a cluster, connected until the generator ends or is closed; without items, it does not connect."""
    if items:
        with connected(cluster):
            yield from map_with_actors(build, items, cluster, only_here=only_here)


def map_on_cluster(
    address: str, gpus: float, build: Callable[..., Callable[[ItemT], ResultT]], items: Sequence[ItemT]
) -> Iterator[ResultT]:
    """The same with one actor for each free CPU of the cluster at `address`, connected until the generator ends.

    With `gpus`, an actor for each such share of a GPU; `build` then gets `device`. Raises KcmError if no cluster
    answers there, and ConfigError for a fixed one without GPUs.
    """
    config = ClusterConfig(address=address, gpus_per_worker=gpus, num_workers=1)
    if gpus:
        build = partial(build, device=config.device)
    with connected(config):
        free = ray.available_resources()
        num_free = int(free.get("GPU", 0) / gpus if gpus else free.get("CPU", 0))
        yield from map_with_actors(build, items, config.model_copy(update={"num_encoders": max(1, num_free)}))


def run_on_this_node(function: Callable[..., ResultT], *arguments: Any) -> ResultT:
    """`run_remotely` of `pipelines.batch.mapping` on a cluster."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    remote = ray.remote(function).options(num_cpus=0, max_retries=RETRIES, scheduling_strategy=here)
    try:
        result: ResultT = ray.get(remote.remote(*arguments))
    except RayTaskError as error:
        if isinstance(error.cause, _TOLD):
            raise error.cause from None
        raise
    return result


def silence_ray_data() -> None:
    """Turn off Ray Data's progress output; the stage has its own bar."""
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def _on_ray_data(items: Sequence[Any], worker: Any, **options: Any) -> Generator[Any]:
    """The results in the order of the items. Each item is a block of its own, so that it becomes one task."""
    if not items:
        return
    silence_ray_data()
    pickled = [ray.cloudpickle.dumps(item) for item in items]
    blocks = [pa.table({"index": [index], "item": [item]}) for index, item in enumerate(pickled)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Ray 2.60 has no other way yet to limit retries
        dataset = ray.data.from_arrow(blocks).map_batches(worker, batch_size=None, batch_format="pyarrow", **options)
    early: dict[int, Any] = {}
    following = 0
    batches: Iterable[Any] = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    for batch in batches:
        early |= zip(batch["index"].to_pylist(), map(pickle.loads, batch["result"].to_pylist()), strict=True)
        while following in early:
            result = early.pop(following)
            if isinstance(result, _TOLD):
                raise result
            yield result
            following += 1


class _Actor:
    """Builds its function with the first item, not at its start, so that an error of `build` becomes a result."""

    def __init__(self, build: Callable[[], Callable[[Any], Any]]) -> None:
        self._build = build
        self._function: Callable[[Any], Any] | None = None

    def __call__(self, batch: pa.Table) -> pa.Table:
        return _apply(self._call, batch)

    def _call(self, item: Any) -> Any:
        self._function = self._function or self._build()
        return self._function(item)


def _apply(function: Callable[[Any], Any], batch: pa.Table) -> pa.Table:
    """The results of a block of items. A user error is a result, since Ray would wrap it."""
    results = []
    for item in batch["item"].to_pylist():
        try:
            results.append(function(pickle.loads(item)))
        except _TOLD as error:
            results.append(error)
    return pa.table({"index": batch["index"], "result": pa.array(map(pickle.dumps, results), pa.large_binary())})
