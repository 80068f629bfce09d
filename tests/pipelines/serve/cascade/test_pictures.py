"""Pictures are bounded by their headers, read one at a time beside the batches, and no longer than anyone waits."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kcm.bundle.runtime import Input
from kcm.inputs.content import IMAGE, Content, UnreadableError
from kcm.inputs.pictures import PictureError
from pipelines.serve.cascade.batcher import Batcher, QueueFullError
from pipelines.serve.cascade.pictures import PicturesFirst, TooManyPixelsError
from pipelines.serve.cascade.service import CascadeService
from pipelines.serve.deploy.config import ServeConfig
from pipelines.serve.http.errors import Refusal


def picture(width: int, height: int = 1) -> bytes:
    stream = io.BytesIO()
    Image.new("1", (width, height)).save(stream, "PNG")
    return stream.getvalue()


class Reader:
    """Remembers what it reads; holds each of them until it is let go, where it is told to hold."""

    def __init__(self, hold: bool = False) -> None:
        self.seen: list[bytes] = []
        self.started, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self._hold = hold

    def __call__(self, content: Content) -> Content:
        self.seen.append(content.image)
        self.started.release()
        if self._hold:
            assert self.go.acquire(timeout=10)
        if content.image == picture(13):
            raise PictureError("the image is damaged")
        return replace(content, pixels=np.array([len(content.image)]))


def pictures_first(read: Reader, max_pixels: int = 1000, max_waiting: int = 100, num_threads: int = 1) -> Any:
    def judged(inputs: list[Input]) -> list[Any]:
        return [(given.content.text, given.content.pixels) for given in inputs]

    batcher: Any = Batcher(judged, lambda given: given.content.size, max_batch_size=8, max_waiting=100)
    limits = {"max_pixels": max_pixels, "max_waiting": max_waiting, "num_threads": num_threads}
    return PicturesFirst(read, batcher, **limits)


def inputs(*images: bytes) -> list[Input]:
    return [Input(Content(str(position), image)) for position, image in enumerate(images)]


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 20))


def test_every_picture_is_read_once_and_judged_with_its_own_text() -> None:
    read, first, second = Reader(), picture(7), picture(8, 9)
    judged = run(pictures_first(read).submit(inputs(first, second, b"", first)))
    assert read.seen == [first, second]
    assert [text for text, _ in judged] == ["0", "1", "2", "3"]
    assert [pixels and pixels[0] for _, pixels in judged] == [len(first), len(second), None, len(first)]


def test_a_request_with_too_many_pixels_is_refused_before_any_is_decoded() -> None:
    read = Reader()
    with pytest.raises(TooManyPixelsError, match="more than 1,000 pixels together"):
        run(pictures_first(read).submit(inputs(picture(400), picture(401), picture(200))))
    assert read.seen == []
    assert run(pictures_first(read).submit(inputs(picture(500), picture(500), picture(499, 1))[:2]))


@pytest.mark.parametrize("unreadable", [picture(13), b"no picture", picture(1001)], ids=["damaged", "none", "large"])
def test_one_unreadable_picture_is_named_and_costs_no_other_a_second_reading(unreadable: bytes) -> None:
    read = Reader()

    async def both() -> list[Any]:
        first = pictures_first(read)
        return await asyncio.gather(
            first.submit(inputs(picture(5), unreadable, picture(6))), first.submit(inputs(picture(7))),
            return_exceptions=True,
        )  # fmt: skip

    error, innocent = run(both())
    assert isinstance(error, UnreadableError)
    assert list(error.faults) == [1]
    assert innocent[0][1] is not None
    assert read.seen.count(picture(7)) == 1
    assert max(map(read.seen.count, read.seen)) == 1
    assert picture(6) not in read.seen


def test_once_nobody_waits_no_more_pictures_of_a_request_are_decoded() -> None:
    read = Reader(hold=True)

    async def leave() -> None:
        first = pictures_first(read)
        leaving = asyncio.ensure_future(first.submit(inputs(picture(5), picture(6), picture(7))))
        await asyncio.to_thread(read.started.acquire)
        staying = asyncio.ensure_future(first.submit(inputs(picture(8))))
        await asyncio.sleep(0)
        leaving.cancel()
        read.go.release(2)
        await staying
        with pytest.raises(asyncio.CancelledError):
            await leaving

    run(leave())
    assert read.seen == [picture(5), picture(8)]


def test_pictures_of_other_requests_come_in_between() -> None:
    read, many = Reader(hold=True), [picture(width) for width in range(20, 26)]

    async def both() -> None:
        first = pictures_first(read)
        greedy = asyncio.ensure_future(first.submit(inputs(*many)))
        await asyncio.to_thread(read.started.acquire)
        innocent = asyncio.ensure_future(first.submit(inputs(picture(8))))
        await asyncio.sleep(0)
        read.go.release(3)
        await innocent
        assert not greedy.done()
        read.go.release(10)
        await greedy

    run(both())
    assert picture(8) in read.seen[:3]


def test_the_pictures_that_wait_are_bounded() -> None:
    read = Reader(hold=True)

    async def fill() -> None:
        first = pictures_first(read, max_waiting=2)
        waiting = asyncio.ensure_future(first.submit(inputs(picture(5), picture(6))))
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError):
            await first.submit(inputs(picture(7)))
        read.go.release(3)
        await waiting
        assert len(await first.submit(inputs(picture(7)))) == 1

    run(fill())


@pytest.mark.parametrize(
    ("images", "detail"),
    [
        ([picture(5), picture(13)], "inputs[1].image: the image is damaged"),
        ([picture(600), picture(601)], "inputs: the images have more than 1,000 pixels together"),
    ],
)
def test_clients_are_told_which_picture_or_that_all_are_too_large(images: Sequence[bytes], detail: str) -> None:
    small_side: Any = SimpleNamespace(bundle=SimpleNamespace(reads=IMAGE, task_names=()))
    never: Any = None  # the large model is not reached
    service = CascadeService(small_side, pictures_first(Reader()), never, ServeConfig(), "5")
    with pytest.raises(Refusal) as refused:
        run(service.predict([Input(Content(image=image)) for image in images], "id"))
    assert (refused.value.status, refused.value.detail, refused.value.retry_after_s) == (422, detail, None)
