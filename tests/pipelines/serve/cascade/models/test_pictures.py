"""Pictures are bounded by their headers, read one at a time beside the batches, and no longer than anyone waits."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kcm.bundle.answers import Input, Judgement
from kcm.bundle.runtime import SmallSide
from kcm.inputs.content import IMAGE, Content, UnreadableError
from kcm.inputs.pictures import PictureError
from pipelines.serve.cascade.models.judging import PictureReader, TooManyPixelsError
from pipelines.serve.cascade.models.queues import QueueFullError
from pipelines.serve.config import BatchingConfig, ServeConfig
from pipelines.serve.log.entries import Origin
from pipelines.serve.schemas import Refusal
from tests.pipelines.serve.stubs import picture, service_of, version_of


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
            assert self.go.acquire(timeout=10)
        if content.image == picture(13):
            raise PictureError("the image is damaged")
        return replace(content, pixels=np.array([len(content.image)]))


def reader(decode: Reader, max_pixels: int = 1000, max_waiting: int = 100) -> PictureReader:
    return PictureReader(decode, BatchingConfig(max_waiting_items=max_waiting), max_pixels)


def inputs(*images: bytes) -> list[Input]:
    return [Input(Content(str(position), image)) for position, image in enumerate(images)]


async def test_every_picture_is_read_once_and_judged_with_its_own_text() -> None:
    read, first, second = Reader(), picture(7), picture(8, 9)
    found = await reader(read).read(inputs(first, second, b"", first))
    assert read.seen == [first, second]
    assert [given.content.text for given in found] == ["0", "1", "2", "3"]
    pixels = [given.content.pixels for given in found]
    assert [each and each[0] for each in pixels] == [len(first), len(second), None, len(first)]


async def test_a_request_with_too_many_pixels_is_refused_before_any_is_decoded() -> None:
    read = Reader()
    with pytest.raises(TooManyPixelsError, match="more than 1,000 pixels together"):
        await reader(read).read(inputs(picture(400), picture(401), picture(200)))
    assert read.seen == []
    assert await reader(read).read(inputs(picture(500), picture(500), picture(499, 1))[:2])


@pytest.mark.parametrize("unreadable", [picture(13), b"no picture", picture(1001)], ids=["damaged", "none", "large"])
async def test_one_unreadable_picture_is_named_and_costs_no_other_a_second_reading(unreadable: bytes) -> None:
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


async def test_once_nobody_waits_no_more_pictures_of_a_request_are_decoded() -> None:
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


@pytest.mark.parametrize(
    ("images", "detail"),
    [
        ([picture(5), picture(13)], "inputs[1].image: the image is damaged"),
        ([picture(600), picture(601)], "inputs: the images have more than 1,000 pixels together"),
    ],
)
async def test_the_error_names_the_picture_or_says_that_all_are_too_large(images: Sequence[bytes], detail: str) -> None:
    class SureOfAll(SmallSide):
        def __init__(self) -> None:
            self.bundle: Any = SimpleNamespace(reads=IMAGE, task_names=())

        def judge_features(self, features_ND: Any, inputs: Sequence[Input], encoded_s: float) -> list[Judgement]:
            return [Judgement(0, np.ones(1), 1.0, 1.0, 0.0, True, 0.0, features_ND[0]) for _ in inputs]

    async def predict() -> None:
        no_escalation = None  # the large model is not reached
        service = await service_of(version_of(SureOfAll(), no_escalation, ServeConfig(), decode=Reader()))
        await service.predict([Input(Content(image=image)) for image in images], Origin("id"))

    with pytest.raises(Refusal) as refused:
        await predict()
    assert (refused.value.status, refused.value.detail, refused.value.retry_after_s) == (422, detail, None)
