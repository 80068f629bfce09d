"""Run a function over many items in this process."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def one_thread() -> AbstractContextManager[Any]:
    """Arithmetic on one core within the block, as in a process of Ray that reserves one.

    The threads of a matrix product wait for each other by spinning: on small matrices they cost several times the CPU
    and save nothing. One thread also adds in the order in which a worker does.
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
        finally:  # whoever catches an error ends what the threads wait for
            pool.shutdown(wait=False, cancel_futures=True)
