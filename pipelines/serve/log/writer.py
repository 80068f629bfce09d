"""The log beside an event loop: in a thread of its own, with a bounded queue, a buffer and a breaker."""

from __future__ import annotations

import asyncio
import datetime
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kcm.bundle.answers import Route
from kcm.inputs.content import Content
from pipelines.serve.breaker import Breaker, Call
from pipelines.serve.config import FeedbackConfig
from pipelines.serve.log.database import LogUnavailableError
from pipelines.serve.log.decisions import APPLICATION, DecisionLog, UnknownRequestError
from pipelines.serve.log.entries import Decision, Escalated, Event, Feedback, Tally
from pipelines.serve.log.records.drift import Evidence
from pipelines.serve.log.records.inbox import InboxView
from pipelines.serve.log.records.payloads import STEP, Payload
from pipelines.serve.log.records.tenures import Tenure
from pipelines.serve.log.records.watched import Watched

MAX_WAITING = 256  # writes that wait for the database
MAX_BUFFERED = 50_000  # decisions that wait for the database; the oldest are dropped for new ones
MAX_BUFFERED_BYTES = 64 * 2**20  # of payloads among them; the oldest payloads are dropped, and their decisions stay
BUFFER_S = 0.25  # time that a decision may wait for others to be committed with it
MAX_PATIENT = 8  # labels that wait for another replica's decisions; made-up ids must not fill the door
EXPIRE_EVERY_S = 60.0  # time between looks at what is kept for too long
KNOWN_AFTER_S = 1.0  # time in which every replica's decisions are in the log, while the database works
_RESTS = "the database has failed just now, or too much waits for it"

logger = logging.getLogger("ray.serve")

WrittenT = TypeVar("WrittenT")


class LogWriter:
    """Gives up at once, by LogUnavailableError, while the database fails: predictions must not wait for it.

    One thread writes and one reads: a locked database must not take the threads that compute, and what is written does
    not wait for what is read. `dropped` is called with the kind and the number of what never reached the log.
    """

    def __init__(
        self,
        config: FeedbackConfig,
        url: str,
        dropped: Callable[[str, int], None] = lambda kind, number: None,
        application: str | None = None,
    ) -> None:
        self._config, self._dropped = config, dropped
        self._log = DecisionLog(url, config.timeout_s, application or APPLICATION)
        self._breaker = Breaker(config.breaker)
        self._thread, self._reader = (ThreadPoolExecutor(1, thread_name_prefix=name) for name in ("log", "log-reader"))
        self._num_waiting = self._num_patient = 0
        self._buffer: list[Decision] = []
        self._num_bytes = 0  # of the payloads in the buffer
        self._sequence = itertools.count(1)
        self._flushing = asyncio.Lock()
        self._later: asyncio.Task[None] | None = None
        self._expiring: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Make the tables, where that fails now, the first write tries again; and delete old payloads from now on."""
        try:
            await self._write(self._log.open)
        except LogUnavailableError as error:
            logger.error("the log cannot be opened: %s", error)
        self._expiring = asyncio.create_task(self._expire_regularly())

    def payload(self, content: Content, features_D: NDArray[np.float32], route: Route) -> Payload | None:
        """What is to be kept of an input."""
        kept = self._config.store_payloads
        if kept == "none" and self._config.store_texts and route != "small":
            kept = "text"
        return Payload.of(content, features_D, kept)

    def add_decisions(self, decisions: Sequence[Decision]) -> None:
        """Have answered items committed soon, in their order, and again and again while the database fails."""
        self._buffer += [replace(each, sequence=next(self._sequence)) for each in decisions]
        self._num_bytes += _num_bytes(decisions)
        self._drop_oldest()
        if self._later is None or self._later.done():
            self._later = asyncio.create_task(self._flush_later())

    async def flush(self) -> None:
        """Commit every decision that was added before; where LogUnavailableError is raised they stay buffered."""
        async with self._flushing:
            batch, self._buffer, self._num_bytes = self._buffer, [], 0
            if not batch:
                return
            try:
                await self._write(lambda: self._log.add_decisions(batch))
            except BaseException:
                # A batch that has been committed after all is stored once, however often it is sent.
                self._buffer = batch + self._buffer
                self._num_bytes += _num_bytes(batch)
                self._drop_oldest()
                raise

    async def add_feedback(self, request_id: str, caller: str | None, labels: Sequence[Feedback]) -> None:
        """As `DecisionLog.add_feedback`; what another replica has answered just now may have to be waited for."""
        max_new = self._config.max_new_labels
        await self.flush()
        try:
            await self._write(lambda: self._log.add_feedback(request_id, caller, labels, max_new))
        except UnknownRequestError:
            if self._num_patient >= MAX_PATIENT:
                raise
            self._num_patient += 1
            try:
                await asyncio.sleep(KNOWN_AFTER_S)
            finally:
                self._num_patient -= 1
            await self._write(lambda: self._log.add_feedback(request_id, caller, labels, max_new))

    async def tenures(self) -> list[Tenure]:
        """As `DecisionLog.tenures`."""
        return await self._read(self._log.tenures)

    async def inbox(self, limit: int) -> InboxView | None:
        """As `DecisionLog.inbox`."""
        return await self._read(lambda: self._log.inbox(limit))

    async def answer_inbox(self, answers: Mapping[str, str | None], *, again: bool) -> None:
        """As `DecisionLog.answer_inbox`."""
        await self._write(lambda: self._log.answer_inbox(answers, again=again))

    async def finish_audits(
        self,
        request_id: str,
        labels: Mapping[int, str | None],
        probabilities: Mapping[int, NDArray[np.floating]] | None = None,
    ) -> None:
        """As `DecisionLog.finish_audits`."""
        await self._write(lambda: self._log.finish_audits(request_id, labels, probabilities))

    async def add_escalated(self, request_id: str, model_version: str, escalated: Sequence[Escalated]) -> None:
        """As `DecisionLog.add_escalated`."""
        await self._write(lambda: self._log.add_escalated(request_id, model_version, escalated))

    async def add_failure(self, request_id: str, model_version: str, stage: int, status: int) -> None:
        """As `DecisionLog.add_failure`."""
        await self._write(lambda: self._log.add_failure(request_id, model_version, stage, status))

    async def beats(self, model_version: str) -> int | None:
        """As `DecisionLog.beats`."""
        return await self._read(lambda: self._log.beats(model_version))

    async def tallies(self, model_version: str) -> list[Tally]:
        """As `DecisionLog.tallies`."""
        return await self._read(lambda: self._log.tallies(model_version))

    async def put_drift(self, model_version: str, evidence: Mapping[str, Evidence]) -> None:
        """As `DecisionLog.put_drift`."""
        known = dict(evidence)
        await self._write(lambda: self._log.put_drift(model_version, known))

    async def events(self, model_version: str, after: int, limit: int, *, label_free: bool) -> list[Event]:
        """As `DecisionLog.events`."""
        return await self._read(lambda: self._log.events(model_version, after, limit, label_free=label_free))

    async def take_watch(self, model_version: str, lease: datetime.timedelta) -> Watched:
        """As `DecisionLog.take_watch`."""
        return await self._write(lambda: self._log.take_watch(model_version, lease))

    async def put_watched(self, model_version: str, revision: int, state: Mapping[str, Any]) -> bool:
        """As `DecisionLog.put_watched`."""
        return await self._write(lambda: self._log.put_watched(model_version, revision, state))

    async def raise_alarm(self, model_version: str, epsilon: float, regret_low: float) -> bool:
        """As `DecisionLog.raise_alarm`."""
        return await self._write(lambda: self._log.raise_alarm(model_version, epsilon, regret_low))

    async def has_alarm(self, model_version: str) -> bool:
        """As `DecisionLog.has_alarm`."""
        return await self._read(lambda: self._log.has_alarm(model_version))

    def close(self) -> None:
        """Commit the buffered decisions, from any thread; those that fail are lost and logged as an error."""
        batch, self._buffer = self._buffer, []
        try:
            if batch:
                self._log.add_decisions(batch)
        except LogUnavailableError as error:
            logger.error("%d decisions never came into the log: %s", len(batch), error)
        self._log.close()

    async def _flush_later(self) -> None:
        while self._buffer:
            await asyncio.sleep(BUFFER_S)
            try:
                await self.flush()
            except LogUnavailableError as error:
                logger.warning("%d decisions wait for the log: %s", len(self._buffer), error)

    async def _expire_regularly(self) -> None:
        """Delete payloads that are too old or too many, some at a time: other writes come between."""
        config = self._config
        while True:
            await asyncio.sleep(EXPIRE_EVERY_S)
            try:
                while await self._write(lambda: self._log.expire(config.keep_days, config.keep_bytes)) == STEP:
                    await asyncio.sleep(BUFFER_S)
            except LogUnavailableError as error:
                logger.warning("old payloads are not deleted: %s", error)

    def _drop_oldest(self) -> None:
        if (excess := len(self._buffer) - MAX_BUFFERED) > 0:
            self._num_bytes -= _num_bytes(self._buffer[:excess])
            del self._buffer[:excess]
            self._dropped("decision", excess)
        if self._num_bytes > MAX_BUFFERED_BYTES:
            self._drop_payloads(MAX_BUFFERED_BYTES // 2)

    def _drop_payloads(self, num_bytes: int) -> None:
        """Drop the oldest payloads until those that are left hold `num_bytes` at most."""
        dropped = 0
        for place, decision in enumerate(self._buffer):
            if self._num_bytes <= num_bytes:
                break
            if decision.payload:
                self._num_bytes -= decision.payload.num_bytes
                self._buffer[place] = replace(decision, payload=None)
                dropped += 1
        self._dropped("payload", dropped)

    async def _read(self, read: Callable[[], WrittenT]) -> WrittenT:
        return await asyncio.get_running_loop().run_in_executor(self._reader, read)

    async def _write(self, write: Callable[[], WrittenT]) -> WrittenT:
        if self._num_waiting >= MAX_WAITING or (call := self._breaker.admit()) is None:
            raise LogUnavailableError(_RESTS)
        self._num_waiting += 1
        writing = asyncio.get_running_loop().run_in_executor(self._thread, self._attempt, write, call)
        writing.add_done_callback(self._leave)
        # Shielded: a client that leaves does not undo a commit.
        return await asyncio.shield(writing)

    def _leave(self, _: asyncio.Future[Any]) -> None:
        self._num_waiting -= 1

    def _attempt(self, write: Callable[[], WrittenT], call: Call) -> WrittenT:
        if self._breaker.state == "open":  # by a write before this one: each would wait as long
            raise LogUnavailableError(_RESTS)
        try:
            written = write()
        except LogUnavailableError:
            call.failed()
            raise
        except BaseException:
            call.succeeded()  # the database answered, if only that a label is there already
            raise
        call.succeeded()
        return written


def _num_bytes(decisions: Sequence[Decision]) -> int:
    return sum(decision.payload.num_bytes for decision in decisions if decision.payload)
