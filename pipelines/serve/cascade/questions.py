"""A queue for large models that answer each item on its own, such as remote ones: a slow item delays no other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from kcm.large import Item, LargeAnswer
from pipelines.serve.cascade.batcher import QueueFullError


class QuestionQueue:
    """Like Batcher, for models that compute nothing together: `ask` starts a question and returns its future.

    A question without an answer after `timeout_s` becomes an error; the others of its request keep their answers.
    """

    def __init__(self, ask: Callable[[Item], Future[LargeAnswer]], *, max_waiting: int, timeout_s: float) -> None:
        self._ask, self._max_waiting, self._timeout_s = ask, max_waiting, timeout_s
        self._num_waiting = 0

    async def submit(self, items: Sequence[Item]) -> list[LargeAnswer]:
        """One answer per item, in their order. Raises QueueFullError, and what `ask` raised for any of these items.

        Questions that have not been asked when it returns or raises are cancelled.
        """
        if not items:
            return []
        if self._num_waiting + len(items) > self._max_waiting:
            raise QueueFullError(f"{self._num_waiting} items wait already")
        self._num_waiting += len(items)
        answers: list[asyncio.Future[LargeAnswer]] = []
        try:
            answers += [asyncio.wrap_future(self._ask(item)) for item in items]
            await asyncio.wait(answers, timeout=self._timeout_s, return_when=asyncio.FIRST_EXCEPTION)
            return [answer.result() if answer.done() else self._late() for answer in answers]
        finally:
            self._num_waiting -= len(items)
            for answer in answers:
                answer.cancel()

    def _late(self) -> LargeAnswer:
        return LargeAnswer(None, error=f"no answer within {self._timeout_s:.3g} s", outage=True)
