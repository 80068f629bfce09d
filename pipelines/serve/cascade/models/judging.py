"""One encoder and its queues: pictures are read, and items of all versions are encoded together."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from kcm.bundle.answers import Failure, Input, Judgement, Unreadable
from kcm.bundle.runtime import SmallSide
from kcm.encoders import Encoder, encode_readable
from kcm.inputs.content import Content, UnreadableError
from kcm.inputs.pictures import PictureError, num_pixels
from kcm.large import Item
from pipelines.serve.cascade.models.queues import Batcher, QueueFullError
from pipelines.serve.config import MAX_WAITING_ITEMS, BatchingConfig

GivenT = TypeVar("GivenT", Input, Item)


class TooManyPixelsError(Exception):
    """A request's pictures are too large together; the message has their limit."""


class PictureReader:
    """Reads the pictures of each request with `decode`, in its own threads, one after the other.

    A request never holds more than one thread, so pictures of other requests are read in between. No picture of a
    cancelled request is decoded. As many pictures may wait as items of the replica.
    """

    def __init__(
        self,
        decode: Callable[[Content], Content],
        replica: BatchingConfig,
        max_pixels: int,
        max_waiting: int = MAX_WAITING_ITEMS,
    ) -> None:
        self._decode, self._max_pixels, self._max_waiting = decode, max_pixels, max_waiting
        self._threads = ThreadPoolExecutor(max(1, round(replica.cpus)), thread_name_prefix="pictures")
        self._num_waiting = 0

    async def read(self, inputs: Sequence[GivenT], *, strict: bool = True) -> list[GivenT]:
        """The inputs with their pictures decoded; a picture that several inputs share is decoded once.

        Raises UnreadableError for the first picture that cannot be read, TooManyPixelsError before any is decoded, and
        QueueFullError. Without `strict`, an unreadable picture stays as it is, and the model reports that input.
        """
        first = {item.content.image: position for position, item in reversed(list(enumerate(inputs)))}
        first.pop(b"", None)
        if not first:
            return list(inputs)
        if self._num_waiting + len(first) > self._max_waiting:
            raise QueueFullError(f"{self._num_waiting} pictures wait already")
        self._num_waiting += len(first)
        try:
            return await self._decoded(inputs, sorted(first.values()), strict)
        finally:
            self._num_waiting -= len(first)

    async def _decoded(self, inputs: Sequence[GivenT], positions: Sequence[int], strict: bool) -> list[GivenT]:
        run = asyncio.get_running_loop().run_in_executor
        contents = {position: inputs[position].content for position in positions}
        await run(self._threads, self._require_budget, contents, strict)
        pixels = {}
        for position, content in contents.items():
            try:
                pixels[content.image] = (await run(self._threads, self._decode, content)).pixels
            except PictureError as error:
                if strict:
                    raise UnreadableError({position: str(error)}) from None
        return [replace(item, content=replace(item.content, pixels=pixels.get(item.content.image))) for item in inputs]

    def _require_budget(self, contents: dict[int, Content], strict: bool) -> None:
        pixels_left = self._max_pixels
        for position, content in contents.items():
            try:
                pixels_left -= num_pixels(content.image, self._max_pixels)
            except PictureError as error:
                if strict:
                    raise UnreadableError({position: str(error)}) from None
            if pixels_left < 0:
                raise TooManyPixelsError(f"the images have more than {self._max_pixels:,} pixels together")


@dataclass(frozen=True)
class Unjudged(Failure):
    """The networks of a version returned no numbers."""


Verdict = Judgement | Unreadable | Unjudged


@dataclass(frozen=True, eq=False)
class Asked:
    """An input, and the small side that judges it."""

    given: Input
    side: SmallSide


class Judging:
    """Encodes items of several requests together; the small side of each item judges its features.

    Versions with the same encoder share one. `pictures` reads the pictures of a request before its items queue. A
    failure in one small side does not affect another. Items that would wait longer than `max_wait_s` are refused.
    """

    def __init__(
        self,
        encoder: Encoder,
        pictures: PictureReader,
        config: BatchingConfig,
        *,
        max_waiting: int = MAX_WAITING_ITEMS,
        max_wait_s: float = math.inf,
    ) -> None:
        self.encoder, self._pictures = encoder, pictures
        self._batcher: Batcher[Asked, Verdict] = Batcher(
            self._judge,
            lambda question: question.given.content.size,
            config,
            max_waiting=max_waiting,
            max_wait_s=max_wait_s,
        )

    @property
    def num_waiting(self) -> int:
        """Items that wait to be judged."""
        return self._batcher.num_waiting

    async def judge(self, inputs: Sequence[Input], side: SmallSide) -> list[Verdict]:
        """The verdict of a side on each input.

        Raises the errors of reading pictures and of encoding, and QueueFullError.
        """
        readable_inputs = await self._pictures.read(inputs)
        return await self._batcher.submit([Asked(item, side) for item in readable_inputs])

    def _judge(self, batch: list[Asked]) -> list[Verdict]:
        started = time.perf_counter()
        features_ND, faults = encode_readable(self.encoder, [question.given.content for question in batch])
        encoded_s = (time.perf_counter() - started) / len(batch)
        readable = [question for position, question in enumerate(batch) if position not in faults]
        sides = dict.fromkeys(question.side for question in readable)
        verdicts = {side: self._verdicts(side, features_ND, readable, encoded_s) for side in sides}
        return [
            Unreadable(faults[position]) if position in faults else next(verdicts[question.side])
            for position, question in enumerate(batch)
        ]

    def _verdicts(
        self, side: SmallSide, features_ND: NDArray[np.float32], readable: Sequence[Asked], encoded_s: float
    ) -> Iterator[Verdict]:
        """The verdicts of one side on its inputs, in their order."""
        rows = [row for row, question in enumerate(readable) if question.side is side]
        inputs = [readable[row].given for row in rows]
        mine_ND = features_ND if len(rows) == len(features_ND) else features_ND[rows]
        try:
            return iter(side.judge_features(mine_ND, inputs, encoded_s))
        except Exception as error:  # networks and gate scores may be third-party code
            return iter([Unjudged(f"{type(error).__name__}: {error}")] * len(rows))
