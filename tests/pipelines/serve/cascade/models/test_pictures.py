"""Pictures are bounded by their headers, read one at a time beside the batches, and no longer than anyone waits."""

import asyncio
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kcm.bundle.answers import Input
from kcm.inputs.content import Content, UnreadableError
from kcm.inputs.pictures import PictureError
from pipelines.serve.cascade.models.judging import PictureReader, TooManyPixelsError
from pipelines.serve.cascade.models.queues import QueueFullError
from pipelines.serve.config import BatchingConfig
from tests.pipelines.serve.stubs import picture


class Reader:
    """Remembers what it reads; holds each of them until it is let go, where it is set to hold."""

    def __init__(self, hold: bool = False) -> None:
        self.seen: list[bytes] = []
        self.started, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self._hold = hold

    def __call__(self, content: Content) -> Content:
        self.seen.append(content.image)
        self.started.release()
        if self._hold:
            assert self.go.acquire(timeout=120)
        if content.image == picture(13):
            raise PictureError("the image is damaged")
        return replace(content, pixels=np.array([len(content.image)]))


def reader(decode: Reader, max_pixels: int = 1000, max_waiting: int = 100) -> PictureReader:
    return PictureReader(decode, BatchingConfig(), max_pixels, max_waiting)


def inputs(*images: bytes) -> list[Input]:
    return [Input(Content(str(position), image)) for position, image in enumerate(images)]


async def test_every_picture_is_read_once_and_judged_with_its_own_text() -> None:
    read, first, second = Reader(), picture(7), picture(8, 9)
    found = await reader(read).read(inputs(first, second, b"", first))
    assert read.seen == [first, second]
    assert [given.content.text for given in found] == ["0", "1", "2", "3"]
    pixels = [given.content.pixels for given in found]
    assert [each and each[0] for each in pixels] == [len(first), len(second), None, len(first)]


async def test_too_many_pixels_are_refused_before_decoding() -> None:
    """Promise: a request with too many pixels is refused before any is decoded."""
    read = Reader()
    with pytest.raises(TooManyPixelsError, match="more than 1,000 pixels together"):
        await reader(read).read(inputs(picture(400), picture(401), picture(200)))
    assert read.seen == []
    assert await reader(read).read(inputs(picture(500), picture(500), picture(499, 1))[:2])


@pytest.mark.parametrize("unreadable", [picture(13), b"no picture", picture(1001)], ids=["damaged", "none", "large"])
async def test_unreadable_picture_costs_no_second_reading(unreadable: bytes) -> None:
    """Promise: one unreadable picture is named and costs no other a second reading."""
    read = Reader()

    async def both() -> list[Any]:
        first = reader(read)
        return await asyncio.gather(
            first.read(inputs(picture(5), unreadable, picture(6))), first.read(inputs(picture(7))),
            return_exceptions=True,
        )  # fmt: skip

    error, innocent = await both()
    assert isinstance(error, UnreadableError)
    assert list(error.faults) == [1]
    assert innocent[0].content.pixels is not None
    assert read.seen.count(picture(7)) == 1
    assert max(map(read.seen.count, read.seen)) == 1
    assert picture(6) not in read.seen


async def test_cancelled_request_decodes_no_more_pictures() -> None:
    """Promise: once nobody waits no more pictures of a request are decoded."""
    read = Reader(hold=True)
    first = reader(read)
    leaving = asyncio.ensure_future(first.read(inputs(picture(5), picture(6), picture(7))))
    await asyncio.to_thread(read.started.acquire)
    staying = asyncio.ensure_future(first.read(inputs(picture(8))))
    await asyncio.sleep(0)
    leaving.cancel()
    read.go.release(2)
    await staying
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert read.seen == [picture(5), picture(8)]


async def test_the_pictures_that_wait_are_bounded() -> None:
    read = Reader(hold=True)
    first = reader(read, max_waiting=2)
    waiting = asyncio.ensure_future(first.read(inputs(picture(5), picture(6))))
    await asyncio.sleep(0)
    with pytest.raises(QueueFullError):
        await first.read(inputs(picture(7)))
    read.go.release(3)
    await waiting
    assert len(await first.read(inputs(picture(7)))) == 1
