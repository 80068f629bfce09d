"""A queue for large models that answer each item on its own, such as remote ones: a slow item delays no other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from kcm.large import Item, LargeAnswer
from pipelines.serve.cascade.models.batcher import QueueFullError

_REMEMBERED = 0.95  # what an answer leaves of the weight of those before it, in the pace that is expected


class QuestionQueue:
    """Like Batcher, for models that compute nothing together: `ask` starts a question and returns its future.

    A question without an answer after `timeout_s` becomes an error; the others of its request keep their answers.
    Items are refused where, by the pace of the latest answers, those before them would take longer than that: they
    would be asked in vain, and by their callers again. `max_waiting` bounds what the queue holds in memory. `clock`
    gives seconds that never go back.
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
        self._spent_s = self._num_answered = 0.0  # by the latest answers, while there was something to answer
        self._since = 0.0  # by the clock, what `_spent_s` holds

    async def submit(self, items: Sequence[Item]) -> list[LargeAnswer]:
        """One answer per item, in their order. Raises QueueFullError, and what `ask` raised for any of these items.

        Questions that have not been asked when it returns or raises are cancelled.
        """
        if not items:
            return []
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
        """Seconds until all that waits now is answered, by the pace of the latest answers; 0 where nothing waits."""
        return self._num_waiting * self._spent_s / self._num_answered if self._num_answered else 0.0

    def _asked(self, item: Item) -> asyncio.Future[LargeAnswer]:
        answer = asyncio.wrap_future(self._ask(item))
        answer.add_done_callback(lambda done: None if done.cancelled() else self._settled())
        return answer

    def _late(self) -> LargeAnswer:
        self._settled()
        return LargeAnswer(None, error=f"no answer within {self._timeout_s:.3g} s", outage=True)

    def _settled(self) -> None:
        """Take an answer, or the lack of one, into the pace: the time since the one before, however many were asked."""
        now = self._clock()
        self._spent_s = _REMEMBERED * self._spent_s + now - self._since
        self._num_answered = _REMEMBERED * self._num_answered + 1
        self._since = now
