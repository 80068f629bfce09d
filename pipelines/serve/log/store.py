"""The feedback log beside an event loop: in a thread of its own, with a bounded queue and a breaker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from kcm.bundle.runtime import Answer, Input
from pipelines.serve.cascade.breaker import Breaker
from pipelines.serve.log.feedback import Audit, Feedback, FeedbackConfig, FeedbackLog, Labelled, LogUnavailableError

MAX_WAITING = 256  # writes that wait for the database
_RESTS = "the database has failed just now, or too much waits for it"

logger = logging.getLogger("ray.serve")

WrittenT = TypeVar("WrittenT")


class Store:
    """Gives up at once, by LogUnavailableError, while the database fails: predictions must not wait for it.

    One thread writes: a locked database must not take the threads that compute.
    """

    def __init__(self, config: FeedbackConfig, url: str) -> None:
        self._config, self._log = config, FeedbackLog(url, config.timeout_s)
        self._breaker = Breaker(config.breaker)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feedback")
        self._num_waiting = 0

    async def open(self) -> None:
        """Create the tables; where that fails now, the first write tries again."""
        try:
            await self._write(self._log.open)
        except LogUnavailableError as error:
            logger.error("the feedback log cannot be opened: %s", error)

    async def add_feedback(self, request_id: str, labels: Sequence[Feedback]) -> list[Labelled]:
        """As `FeedbackLog.add_feedback`."""
        return await self._write(lambda: self._log.add_feedback(request_id, labels))

    async def add_audits(self, request_id: str, audits: Sequence[Audit]) -> None:
        """As `FeedbackLog.add_audits`."""
        await self._write(lambda: self._log.add_audits(request_id, audits))

    async def finish_audits(self, request_id: str, audits: Sequence[Audit]) -> list[Labelled]:
        """As `FeedbackLog.finish_audits`."""
        return await self._write(lambda: self._log.finish_audits(request_id, audits))

    async def add_escalated(
        self, request_id: str, model_version: str, answers: Sequence[tuple[int, Input, Answer]]
    ) -> None:
        """As `FeedbackLog.add_escalated`."""
        texts = self._config.store_texts
        await self._write(lambda: self._log.add_escalated(request_id, model_version, answers, texts))

    async def _write(self, write: Callable[[], WrittenT]) -> WrittenT:
        if self._num_waiting >= MAX_WAITING or not self._breaker.admits():
            raise LogUnavailableError(_RESTS)
        self._num_waiting += 1
        writing = asyncio.get_running_loop().run_in_executor(self._thread, self._attempt, write)
        writing.add_done_callback(self._leave)
        # Shielded: a client that leaves does not undo a commit.
        return await asyncio.shield(writing)

    def _leave(self, _: asyncio.Future[Any]) -> None:
        self._num_waiting -= 1

    def _attempt(self, write: Callable[[], WrittenT]) -> WrittenT:
        if self._breaker.state == "open":  # by a write before this one: each would wait as long
            raise LogUnavailableError(_RESTS)
        try:
            written = write()
        except LogUnavailableError:
            self._breaker.failed()
            raise
        except BaseException:
            self._breaker.succeeded()  # the database answered, if only that a label is there already
            raise
        self._breaker.succeeded()
        return written
