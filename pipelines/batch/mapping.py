"""Run a function over many items: in this process, or on a Ray cluster if this process is connected to one.

Only a connected process imports `pipelines.batch.on_cluster`, since Ray Data takes a second to import.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

from kcm import extras
from pipelines.cluster.config import ClusterConfig, is_connected

FEW_ITEMS = 32  # this process finishes fewer items before Ray Data has started, which takes about 4 s

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def map_items(
    function: Callable[[ItemT], ResultT], items: Sequence[ItemT], *, few: int = FEW_ITEMS
) -> Iterator[ResultT]:
    """The results of `function`, in the order of the items: by tasks on any node, or here for fewer than `few` items.

    A KcmError or OSError of the function, for example for a full disk, is raised in this process.
    """
    if len(items) < few or not is_connected():
        return map(function, items)
    results: Iterator[ResultT] = extras.load("pipelines.batch.on_cluster:map_with_tasks", "a cluster")(function, items)
    return results


def map_with_actors(
    build: Callable[[], Callable[[ItemT], ResultT]],
    items: Sequence[ItemT],
    cluster: ClusterConfig | None,
    *,
    only_here: bool = False,
    threads: int = 1,
) -> Generator[ResultT]:
    """The same with the function that `build` returns; each of `num_encoders` actors builds it once.

    Without a cluster, each of `threads` threads of this process has its own function. With `only_here`, the actors run
    on the node of this process, because they need its files; they reserve no CPUs, since a head node may have none.
    """
    if cluster is None or not is_connected():
        return in_process(build, items, threads)
    with_actors = extras.load("pipelines.batch.on_cluster:map_with_actors", "a cluster")
    results: Generator[ResultT] = with_actors(build, items, cluster, only_here=only_here)
    return results


def run_remotely(function: Callable[..., ResultT], *arguments: Any) -> ResultT:
    """The result of a function, computed by another process of this node; without a cluster, by this process."""
    if not is_connected():
        with one_thread():
            return function(*arguments)
    result: ResultT = extras.load("pipelines.batch.on_cluster:run_on_this_node", "a cluster")(function, *arguments)
    return result


def one_thread() -> AbstractContextManager[Any]:
    """Limit arithmetic to one core within the block, as in a process of Ray that reserves one core.

    The threads of a matrix product wait for each other by spinning: on small matrices they cost several times the CPU
    and save nothing. One thread also adds numbers in the same order as a worker.
    """
    return threadpool_limits(1)


def in_process(
    build: Callable[[], Callable[[ItemT], ResultT]], items: Sequence[ItemT], threads: int = 1
) -> Generator[ResultT]:
    """The results in the order of the items, by the functions that `build` returns, one for each of `threads`."""
    if items and threads == 1:
        yield from map(build(), items)
    elif items:
        free = [build() for _ in range(threads)]  # the functions that no thread is calling

        def call(item: ItemT) -> ResultT:
            function = free.pop()
            try:
                return function(item)
            finally:
                free.append(function)

        pool = ThreadPoolExecutor(threads)
        try:
            yield from pool.map(call, items)
        finally:  # the caller must stop what the threads wait for, such as questions to a server
            pool.shutdown(wait=False, cancel_futures=True)
