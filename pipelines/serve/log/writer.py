"""The log next to an event loop: a queue of decisions that no answer waits for, and calls with a deadline."""

from __future__ import annotations

import asyncio
import logging
import pickle
import tempfile
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice
from os import SEEK_END
from typing import IO, Any, Concatenate, ParamSpec, TypeVar

from pipelines.serve.config import FeedbackConfig
from pipelines.serve.log.database import APPLICATION, LogUnavailableError, LogVersionError
from pipelines.serve.log.decisions import STEP, DecisionLog
from pipelines.serve.log.entries import Feedback, LoggedDecision, UnknownAnswerError

MAX_WAITING = 256  # calls that wait for the database
MAX_QUEUED, MAX_QUEUED_BYTES = 50_000, 64 * 2**20  # decisions in memory, and bytes of their payloads
MAX_SPILLED_BYTES = 2**30  # on disk, beyond what is in memory; new decisions are dropped after that
MAX_NEW_LABELS = 20  # different new labels of a caller within 24 hours: people name a few classes a day
BATCH = 2000  # decisions committed together
BUFFER_S = 0.25  # a decision may wait this long for others to be committed with it
CLOSE_S = 10.0  # a stopping replica may take this long to commit its queue
QUEUE_S = 2.0  # a call may wait this long behind others, in addition to its own time limit
REST_S = 1.0  # pause after a failure of the database
MAX_PATIENT = 8  # labels that wait for another replica's decisions; made-up ids must not fill the HTTP replica
EXPIRE_EVERY_S = 60.0  # time between deletions of old payloads
KNOWN_AFTER_S = 1.0  # while the database works, every decision is in the log within this time

logger = logging.getLogger("ray.serve")

ResultT = TypeVar("ResultT")
P = ParamSpec("P")


class DecisionQueue:
    """Decisions that wait for the database, in order: the oldest in memory, the overflow in a file.

    The file has no name and disappears with the process. `on_drop` is called with the number of decisions that did not
    fit.
    """

    def __init__(self, on_drop: Callable[[int], None]) -> None:
        self._dropped = on_drop
        self._memory: deque[LoggedDecision] = deque()
        self._num_bytes = 0  # bytes of the payloads in memory
        self._file: IO[bytes] | None = None
        self._read_at = self._num_spilled = 0
        self.num_added = self.num_committed = 0

    def __len__(self) -> int:
        return len(self._memory) + self._num_spilled

    def add(self, decision: LoggedDecision) -> None:
        """Append a decision."""
        if not self._num_spilled and len(self._memory) < MAX_QUEUED and self._num_bytes < MAX_QUEUED_BYTES:
            self._remember(decision)
        elif not self._spill(decision):
            self._dropped(1)
            return
        self.num_added += 1

    def first(self, number: int) -> list[LoggedDecision]:
        """The oldest decisions; they stay until `commit`."""
        if self._file and not self._memory:
            self._file.seek(self._read_at)
            for _ in range(min(number, self._num_spilled)):
                self._remember(pickle.load(self._file))
                self._num_spilled -= 1
            self._read_at = self._file.tell()
            if not self._num_spilled:
                self.close()
        return list(islice(self._memory, number))

    def commit(self, number: int) -> None:
        """Remove the oldest decisions."""
        for _ in range(min(number, len(self._memory))):
            self._num_bytes -= _num_bytes(self._memory.popleft())
        self.num_committed += number

    def close(self) -> None:
        """Drop the file."""
        if self._file:
            self._file.close()
        self._file, self._read_at = None, 0

    def _remember(self, decision: LoggedDecision) -> None:
        self._memory.append(decision)
        self._num_bytes += _num_bytes(decision)

    def _spill(self, decision: LoggedDecision) -> bool:
        """Write a decision to the file, or nothing of it if the disk is full."""
        data = pickle.dumps(decision)
        try:
            self._file = self._file or tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - open as long as the queue
            end = self._file.seek(0, SEEK_END)
            if end + len(data) <= MAX_SPILLED_BYTES and self._file.write(data) == len(data):
                self._num_spilled += 1
                return True
            self._file.truncate(end)
        except OSError as error:
            logger.warning("a decision cannot wait on disk: %s", error)
        return False


class LogWriter:
    """Raises LogUnavailableError while the database fails or is silent: predictions must not wait for it.

    One thread and one connection serve a replica. `on_drop` is called with the kind and the number of entries that
    never reach the log.
    """

    def __init__(
        self,
        config: FeedbackConfig,
        url: str,
        on_drop: Callable[[str, int], None] = lambda kind, number: None,
        application: str | None = None,
    ) -> None:
        self._config = config
        self._log = DecisionLog(url, config.timeout_s, application or APPLICATION, config.max_share_per_caller)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="log")
        self._queue = DecisionQueue(partial(on_drop, "decision"))
        self._num_waiting = self._num_patient = self._sequence = 0
        self._failed_at = -float("inf")
        self._flushing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flusher: asyncio.Task[None] | None = None

    @property
    def available(self) -> bool:
        """Whether the database answered when it was last asked."""
        return self._failed_at == -float("inf")

    async def open(self) -> None:
        """Create the tables (if that fails now, the first call retries) and start deleting old payloads.

        Raises LogVersionError for tables of another version: the process that opens the log must not start then.
        """
        try:
            await self.call(DecisionLog.open)
        except LogVersionError:
            raise
        except LogUnavailableError as error:
            logger.error("the log cannot be opened: %s", error)
        self._start(self._expire_regularly())

    async def call(
        self, method: Callable[Concatenate[DecisionLog, P], ResultT], /, *args: P.args, **kwargs: P.kwargs
    ) -> ResultT:
        """Run a method of the log in its thread; a client that disconnects does not undo a commit.

        Raises LogUnavailableError immediately after a failure, and if there is no result within `timeout_s` plus
        QUEUE_S.
        """
        if self._num_waiting >= MAX_WAITING or self._resting():
            raise LogUnavailableError("the database has failed just now, or too much waits for it")
        self._num_waiting += 1
        running = asyncio.get_running_loop().run_in_executor(self._thread, partial(self._run, method, args, kwargs))
        running.add_done_callback(self._leave)
        finished, _ = await asyncio.wait({running}, timeout=self._config.timeout_s + QUEUE_S)
        if not finished:
            self._failed_at = time.monotonic()
            self._log.interrupt()
            raise LogUnavailableError("the database is silent")
        return running.result()

    def add_decisions(self, decisions: Sequence[LoggedDecision]) -> None:
        """Commit answered items soon, in order; retries while the database fails."""
        for decision in decisions:
            self._sequence += 1
            self._queue.add(replace(decision, sequence=self._sequence))
        if self._flusher is None or self._flusher.done():
            self._flusher = self._start(self._flush_later())

    async def flush(self) -> None:
        """Commit every decision added so far; on LogUnavailableError they stay in the queue."""
        goal = self._queue.num_added
        async with self._flushing:
            while self._queue.num_committed < goal:
                batch = self._queue.first(BATCH)
                # A batch that has been committed after all is stored once, however often it is sent.
                await self.call(DecisionLog.add_decisions, batch)
                self._queue.commit(len(batch))

    async def add_feedback(self, request_id: str, caller: str | None, labels: Sequence[Feedback]) -> None:
        """`DecisionLog.add_feedback`, which may wait for what another replica has just answered."""
        if len(self._queue) <= BATCH:  # else the database is catching up, and most labels come later than that
            await self.flush()
        try:
            await self.call(DecisionLog.add_feedback, request_id, caller, labels, MAX_NEW_LABELS)
        except UnknownAnswerError:
            if self._num_patient >= MAX_PATIENT:
                raise
            self._num_patient += 1
            try:
                await asyncio.sleep(KNOWN_AFTER_S)
            finally:
                self._num_patient -= 1
            await self.call(DecisionLog.add_feedback, request_id, caller, labels, MAX_NEW_LABELS)

    def close(self) -> None:
        """Commit the queue, from any thread; decisions that fail are lost and logged as an error."""
        try:
            self._thread.submit(self._commit_all).result(CLOSE_S)
        except (LogUnavailableError, TimeoutError) as error:
            self._log.interrupt()
            logger.error("%d decisions were lost before they reached the log: %s", len(self._queue), error)
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._queue.close()
        self._log.close()

    def _commit_all(self) -> None:
        while batch := self._queue.first(BATCH):
            self._log.add_decisions(batch)
            self._queue.commit(len(batch))

    async def _flush_later(self) -> None:
        while self._queue:
            await asyncio.sleep(BUFFER_S)
            try:
                await self.flush()
            except LogUnavailableError as error:
                logger.warning("%d decisions wait for the log: %s", len(self._queue), error)

    async def _expire_regularly(self) -> None:
        """Delete payloads that are too old or too many, in steps, so that other calls can run between."""
        config = self._config
        while True:
            await asyncio.sleep(EXPIRE_EVERY_S)
            try:
                while await self.call(DecisionLog.expire, config.keep_days, config.keep_bytes) == STEP:
                    await asyncio.sleep(BUFFER_S)
            except LogUnavailableError as error:
                logger.warning("old payloads are not deleted: %s", error)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _resting(self) -> bool:
        return time.monotonic() < self._failed_at + REST_S

    def _leave(self, running: asyncio.Future[Any]) -> None:
        self._num_waiting -= 1
        if not running.cancelled():
            running.exception()  # it may have been given up: then nobody else asks for it

    def _run(self, method: Callable[..., ResultT], args: tuple[Any, ...], kwargs: dict[str, Any]) -> ResultT:
        if self._resting():  # after the call before this one: each would wait as long
            raise LogUnavailableError("the database has failed just now")
        try:
            result = method(self._log, *args, **kwargs)
        except LogUnavailableError:
            self._failed_at = time.monotonic()
            raise
        except Exception:  # the database answered, if only that a label is there already
            self._failed_at = -float("inf")
            raise
        self._failed_at = -float("inf")
        return result


def _num_bytes(decision: LoggedDecision) -> int:
    return decision.payload.num_bytes if decision.payload else 0
