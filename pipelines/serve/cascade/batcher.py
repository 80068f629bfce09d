"""Items of several requests computed together, those of like length in one batch.

Ray Serve's own `@serve.batch` takes items in the order of arrival and computes those of clients that have left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class QueueFullError(Exception):
    """More items wait than are allowed to."""


@dataclass(eq=False)
class _Waiting(Generic[ItemT, ResultT]):
    item: ItemT
    length: int
    result: asyncio.Future[ResultT]


class Batcher(Generic[ItemT, ResultT]):
    """Runs `compute`, in a thread of its own, over batches of the items that wait.

    One batch is computed at a time; while it is, the next one gathers. A batch holds the item that waits longest and
    those nearest to it in length: padding costs computation too, and no item starves. Items whose request has been
    cancelled are not computed. `wait_s` is how long a batch that is not full waits for more.
    """

    def __init__(
        self,
        compute: Callable[[list[ItemT]], Sequence[ResultT]],
        length: Callable[[ItemT], int],
        *,
        max_batch_size: int,
        max_waiting: int,
        wait_s: float = 0.0,
    ) -> None:
        self._compute, self._length = compute, length
        self._max_batch_size, self._max_waiting, self._wait_s = max_batch_size, max_waiting, wait_s
        self._waiting: list[_Waiting[ItemT, ResultT]] = []
        self._running: asyncio.Task[None] | None = None

    @property
    def num_waiting(self) -> int:
        """Items that wait to be computed."""
        return len(self._waiting)

    async def submit(self, items: Sequence[ItemT]) -> list[ResultT]:
        """One result per item, in their order.

        Raises QueueFullError, and what `compute` raised for any batch with an item among these.
        """
        if len(self._waiting) + len(items) > self._max_waiting:
            raise QueueFullError(f"{len(self._waiting)} items wait already")
        create_future = asyncio.get_running_loop().create_future
        entries = [_Waiting(item, self._length(item), create_future()) for item in items]
        self._waiting += entries
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        try:
            return list(await asyncio.gather(*(entry.result for entry in entries)))
        finally:
            for entry in entries:
                entry.result.cancel()  # those without a result: their request is over

    async def _run(self) -> None:
        try:
            while self._waiting:
                # Requests that have arrived by now join; after that, only a batch with room waits for more.
                await asyncio.sleep(self._wait_s if len(self._waiting) < self._max_batch_size else 0)
                if batch := self._next_batch():
                    await self._compute_batch(batch)
        finally:
            self._running = None

    def _next_batch(self) -> list[_Waiting[ItemT, ResultT]]:
        """Take the next batch off the queue."""
        self._waiting = [entry for entry in self._waiting if not entry.result.done()]
        if not self._waiting:
            return []
        oldest = self._waiting[0]
        nearest = sorted(self._waiting, key=lambda entry: (entry is not oldest, abs(entry.length - oldest.length)))
        batch = nearest[: self._max_batch_size]
        taken = set(map(id, batch))
        self._waiting = [entry for entry in self._waiting if id(entry) not in taken]
        return batch

    async def _compute_batch(self, batch: list[_Waiting[ItemT, ResultT]]) -> None:
        try:
            # Off the event loop, which has to go on accepting requests and answering health checks.
            results = await asyncio.to_thread(self._compute, [entry.item for entry in batch])
            pairs = list(zip(batch, results, strict=True))
        except Exception as error:
            for entry in batch:
                if not entry.result.done():
                    entry.result.set_exception(error)
            return
        for entry, result in pairs:
            if not entry.result.done():
                entry.result.set_result(result)
