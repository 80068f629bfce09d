"""The queues in front of models, bounded by waiting time: one for batches, one for single items.

Ray Serve's own `@serve.batch` takes items in the order of arrival and computes items of clients that have left.
"""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

from kcm.large import Item, LargeAnswer
from pipelines.serve.config import MAX_WAITING_ITEMS, BatchingConfig

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

_LATEST_BATCHES = 7  # the pace is the median of this many batches: a stalled batch, such as the first, changes nothing
_FEWEST_BATCHES = 3  # batches before the pace is known: a median of fewer could come from a stall
_REMEMBERED = 0.95  # decay of earlier answers' weight in the pace of questions, per answer


class QueueFullError(Exception):
    """Too many items wait, or a new item would wait too long."""


@dataclass(eq=False)
class _Waiting(Generic[ItemT, ResultT]):
    item: ItemT
    length: int
    result: asyncio.Future[ResultT]
    latest: float  # time after which its result is useless
    is_behind: bool  # whether anything was queued before it when it came


class Batcher(Generic[ItemT, ResultT]):
    """Runs `compute`, in its own thread, over batches of the waiting items.

    One batch is computed at a time; meanwhile the next one gathers. A batch holds the item that has waited longest and
    the items nearest to it in length: this saves padding, and no item starves. Items of cancelled requests are not
    computed.

    The queue is bounded by time. An item is refused if it would finish after `max_wait_s`, estimated from the median
    pace of the latest batches and the items before it. It is dropped if it really waited that long: its caller has
    given up by then. An item with nothing before it is always computed. `max_waiting` bounds the memory of the
    queue. `clock` returns monotonic seconds.
    """

    def __init__(
        self,
        compute: Callable[[list[ItemT]], Sequence[ResultT]],
        length: Callable[[ItemT], int],
        config: BatchingConfig,
        *,
        max_waiting: int = MAX_WAITING_ITEMS,
        max_wait_s: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._compute, self._length = compute, length
        self._max_batch_size, self._max_waiting = config.max_batch_size, max_waiting
        self._max_wait_s, self._clock = max_wait_s, clock
        self._paces_s: deque[float] = deque(maxlen=_LATEST_BATCHES)  # seconds per item of each of the latest batches
        self._batch: tuple[float, int] | None = None  # start of the current batch, and its number of items
        self._waiting: list[_Waiting[ItemT, ResultT]] = []
        self._running: asyncio.Task[None] | None = None

    @property
    def num_waiting(self) -> int:
        """Items that wait to be computed."""
        return len(self._waiting)

    async def submit(self, items: Sequence[ItemT]) -> list[ResultT]:
        """One result per item, in their order.

        Raises QueueFullError, and any error of `compute` for a batch with one of these items.
        """
        if len(self._waiting) + len(items) > self._max_waiting:
            raise QueueFullError(f"{len(self._waiting)} items wait already")
        wait_s = self.expected_wait_s()
        own_s = self._pace_s() * min(len(items), self._max_batch_size)
        if wait_s and wait_s + own_s > self._max_wait_s:
            raise QueueFullError(f"{len(self._waiting)} items wait already, which takes about {wait_s:.1f} s")
        create_future = asyncio.get_running_loop().create_future
        latest = self._clock() + self._max_wait_s
        is_behind = bool(self._waiting) or self._batch is not None
        entries = [_Waiting(item, self._length(item), create_future(), latest, is_behind) for item in items]
        self._waiting += entries
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        try:
            return list(await asyncio.gather(*(entry.result for entry in entries)))
        finally:
            for entry in entries:
                entry.result.cancel()  # items without a result: their request is over

    def expected_wait_s(self) -> float:
        """Seconds that an item would wait if it came now: the pace of the latest batches times the items before it.

        0 if the queue is empty, whatever the pace, because a batch has to show when the pace improves. 0 also while too
        few batches are known.
        """
        pace_s = self._pace_s()
        running_s = 0.0
        if self._batch is not None:
            began, size = self._batch
            running_s = max(0.0, size * pace_s - (self._clock() - began))
        return running_s + len(self._waiting) * pace_s

    def _pace_s(self) -> float:
        """Seconds per item in the latest batches; 0 while too few batches are known."""
        return statistics.median(self._paces_s) if len(self._paces_s) >= _FEWEST_BATCHES else 0.0

    async def _run(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(0)  # requests that have already arrived join
                if batch := self._next_batch():
                    await self._compute_batch(batch)
        finally:
            self._running = None

    def _next_batch(self) -> list[_Waiting[ItemT, ResultT]]:
        """Take the next batch off the queue."""
        now, pace_s = self._clock(), self._pace_s()
        for entry in self._waiting:
            if entry.latest < now + pace_s * entry.is_behind and not entry.result.done():
                entry.result.set_exception(QueueFullError(f"cannot be done within {self._max_wait_s:g} s"))
        self._waiting = [entry for entry in self._waiting if not entry.result.done()]
        if not self._waiting:
            return []
        oldest = self._waiting[0]
        nearest = sorted(self._waiting, key=lambda entry: (entry is not oldest, abs(entry.length - oldest.length)))
        batch = nearest[: self._max_batch_size]
        batch_ids = set(map(id, batch))
        self._waiting = [entry for entry in self._waiting if id(entry) not in batch_ids]
        return batch

    async def _compute_batch(self, batch: list[_Waiting[ItemT, ResultT]]) -> None:
        began = self._clock()
        self._batch = began, len(batch)
        try:
            # Off the event loop, which has to go on accepting requests and answering health checks.
            results = await asyncio.to_thread(self._compute, [entry.item for entry in batch])
            pairs = list(zip(batch, results, strict=True))
        except Exception as error:
            for entry in batch:
                if not entry.result.done():
                    entry.result.set_exception(error)
            return
        finally:
            self._batch = None
            self._paces_s.append((self._clock() - began) / len(batch))
        for entry, result in pairs:
            if not entry.result.done():
                entry.result.set_result(result)


class QuestionQueue:
    """Like Batcher, for models that answer items one by one, such as remote models: a slow item delays no other.

    `ask` starts a question and returns its future. A question without an answer after `timeout_s` becomes an error;
    other items of its request keep their answers. An item is refused if the items before it would take longer than
    that, at the pace of the latest answers: its caller would give up first. `max_waiting` bounds the memory of the
    queue. `clock` returns monotonic seconds.
    """

    def __init__(
        self,
        ask: Callable[[Item], Future[LargeAnswer]],
        *,
        max_waiting: int,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask, self._max_waiting, self._timeout_s, self._clock = ask, max_waiting, timeout_s, clock
        self._num_waiting = 0
        self._spent_s = self._num_answered = 0.0  # of the latest answers, while items waited
        self._since = 0.0  # the time up to which `_spent_s` counts

    async def submit(self, items: Sequence[Item]) -> list[LargeAnswer]:
        """One answer per item, in their order. Raises QueueFullError, and any error of `ask` for these items.

        Questions that are still waiting when it returns or raises are cancelled.
        """
        if self._num_waiting + len(items) > self._max_waiting:
            raise QueueFullError(f"{self._num_waiting} items wait already")
        if (wait_s := self.expected_wait_s()) > self._timeout_s:
            raise QueueFullError(f"{self._num_waiting} items wait already, which takes about {wait_s:.1f} s")
        if not self._num_waiting:
            self._since = self._clock()
        self._num_waiting += len(items)
        answers: list[asyncio.Future[LargeAnswer]] = []
        try:
            answers += [self._asked(item) for item in items]
            await asyncio.wait(answers, timeout=self._timeout_s, return_when=asyncio.FIRST_EXCEPTION)
            return [answer.result() if answer.done() else self._late() for answer in answers]
        finally:
            self._num_waiting -= len(items)
            for answer in answers:
                answer.cancel()

    def expected_wait_s(self) -> float:
        """Seconds until all waiting items are answered, at the pace of the latest answers; 0 for an empty queue."""
        return self._num_waiting * self._pace_s()

    def _pace_s(self) -> float:
        """Seconds between the latest answers while items wait; 0 before the first."""
        return self._spent_s / self._num_answered if self._num_answered else 0.0

    def _asked(self, item: Item) -> asyncio.Future[LargeAnswer]:
        answer = asyncio.wrap_future(self._ask(item))
        answer.add_done_callback(lambda future: None if future.cancelled() else self._settled())
        return answer

    def _late(self) -> LargeAnswer:
        self._settled()
        return LargeAnswer(None, error=f"no answer within {self._timeout_s:.3g} s", outage=True)

    def _settled(self) -> None:
        """Add an answer, or a missing one, to the pace: the time since the previous answer, however many were asked."""
        now = self._clock()
        self._spent_s = _REMEMBERED * self._spent_s + now - self._since
        self._num_answered = _REMEMBERED * self._num_answered + 1
        self._since = now
