"""Pictures of requests, read before the items are batched: bounded by their headers, and each decoded once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from kcm.bundle.answers import Input
from kcm.inputs.content import Content, UnreadableError
from kcm.inputs.pictures import PictureError, num_pixels
from kcm.large import Item
from pipelines.serve.cascade.models.batcher import QueueFullError

GivenT = TypeVar("GivenT", Input, Item)


class TooManyPixelsError(Exception):
    """A request's pictures are too large together; the message says how large."""


class PictureReader:
    """Reads the pictures of each request by `decode`, in threads of its own and one after the other.

    A request never holds more than one thread, so that the pictures of other requests come in between, and once it is
    cancelled no more of its pictures are decoded. At most `max_waiting` pictures wait to be read.
    """

    def __init__(
        self,
        decode: Callable[[Content], Content],
        *,
        max_pixels: int,
        max_waiting: int,
        num_threads: int,
    ) -> None:
        self._decode, self._max_pixels, self._max_waiting = decode, max_pixels, max_waiting
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="pictures")
        self._num_waiting = 0

    async def read(self, inputs: Sequence[GivenT], *, strict: bool = True) -> list[GivenT]:
        """The inputs with their pictures decoded; a picture that several inputs share is decoded once.

        Raises UnreadableError for the first picture that cannot be read, TooManyPixelsError before any is decoded, and
        QueueFullError. Without `strict`, what cannot be read stays as it is, for the model to say so of that input.
        """
        first = {given.content.image: position for position, given in reversed(list(enumerate(inputs)))}
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
        return [
            replace(given, content=replace(given.content, pixels=pixels.get(given.content.image))) for given in inputs
        ]

    def _require_budget(self, contents: dict[int, Content], strict: bool) -> None:
        left = self._max_pixels
        for position, content in contents.items():
            try:
                left -= num_pixels(content.image, self._max_pixels)
            except PictureError as error:
                if strict:
                    raise UnreadableError({position: str(error)}) from None
            if left < 0:
                raise TooManyPixelsError(f"the images have more than {self._max_pixels:,} pixels together")
