"""Questions that are each answered on their own: one that is slow delays no other."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future

import pytest

from kcm.inputs.content import Content
from kcm.large import Item, LargeAnswer
from pipelines.serve.cascade.models.queues import QuestionQueue, QueueFullError


class Model:
    """Answers nothing by itself; the test does."""

    def __init__(self) -> None:
        self.futures: dict[str, Future[LargeAnswer]] = {}

    def ask(self, item: Item) -> Future[LargeAnswer]:
        return self.futures.setdefault(item.id, Future())


def items(*ids: str) -> list[Item]:
    return [Item(each, Content(each)) for each in ids]


async def test_an_item_that_is_late_is_an_error_and_its_neighbour_has_its_answer() -> None:
    """Promise: nor does a stalled question take the answers of its own request along."""
    model = Model()
    model.ask(items("fine")[0]).set_result(LargeAnswer(1))
    answers = await QuestionQueue(model.ask, max_waiting=8, timeout_s=0.05).submit(items("slow", "fine"))
    await asyncio.sleep(0)
    assert model.futures["slow"].cancelled()
    late, fine = answers
    assert (late.label, late.outage, late.error) == (None, True, "no answer within 0.05 s")
    assert fine == LargeAnswer(1)


async def test_what_a_question_raises_fails_its_own_request_alone() -> None:
    model = Model()
    questions = QuestionQueue(model.ask, max_waiting=8, timeout_s=60.0)
    broken, fine = (asyncio.create_task(questions.submit(items(name))) for name in ("broken", "fine"))
    await asyncio.sleep(0)
    model.futures["broken"].set_exception(ValueError("no such model"))
    with pytest.raises(ValueError, match="no such model"):
        await broken
    model.futures["fine"].set_result(LargeAnswer(0))
    assert await fine == [LargeAnswer(0)]


async def test_no_more_wait_than_may_and_places_are_given_back() -> None:
    model = Model()
    questions = QuestionQueue(model.ask, max_waiting=2, timeout_s=60.0)
    first = asyncio.create_task(questions.submit(items("a", "b")))
    await asyncio.sleep(0)
    with pytest.raises(QueueFullError, match="2 items wait already"):
        await questions.submit(items("c"))
    assert "c" not in model.futures
    first.cancel()
    await asyncio.wait([first])
    assert model.futures["a"].cancelled()
    model.ask(items("c")[0]).set_result(LargeAnswer(0))
    assert await questions.submit(items("c")) == [LargeAnswer(0)]


async def test_items_are_refused_where_those_before_them_take_longer_than_an_answer_may() -> None:
    """Promise: nothing waits for a model that is too slow for the queue before it, only to be asked a second time."""
    model, now = Model(), [0.0]
    questions = QuestionQueue(model.ask, max_waiting=1000, timeout_s=10.0, clock=lambda: now[0])
    waiting = [asyncio.create_task(questions.submit(items(str(number)))) for number in range(8)]
    await asyncio.sleep(0)
    assert questions.expected_wait_s() == 0.0  # nothing is known of the model's pace yet
    for number in range(2):
        now[0] += 2.0
        model.futures[str(number)].set_result(LargeAnswer(0))
        await waiting[number]
    assert questions.expected_wait_s() == pytest.approx(6 * 2.0)
    with pytest.raises(QueueFullError, match=r"6 items wait already, which takes about 12\.0 s"):
        await questions.submit(items("refused"))
    assert "refused" not in model.futures
    for number in range(2, 4):  # two more answers make room
        now[0] += 2.0
        model.futures[str(number)].set_result(LargeAnswer(0))
        await waiting[number]
    waiting.append(asyncio.create_task(questions.submit(items("taken"))))
    await asyncio.sleep(0)
    assert "taken" in model.futures
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)


async def test_a_pause_is_no_slowness_and_an_idle_queue_takes_whatever_comes() -> None:
    model, now = Model(), [0.0]
    questions = QuestionQueue(model.ask, max_waiting=1000, timeout_s=10.0, clock=lambda: now[0])
    for name in ("a", "b"):
        task = asyncio.create_task(questions.submit(items(name)))
        await asyncio.sleep(0)
        now[0] += 1.0
        model.futures[name].set_result(LargeAnswer(0))
        await task
        now[0] += 3600.0
    waiting = [asyncio.create_task(questions.submit(items(str(number)))) for number in range(5)]
    await asyncio.sleep(0)
    assert questions.expected_wait_s() == pytest.approx(5.0)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    now[0] += 100.0
    slow = asyncio.create_task(questions.submit(items("slow")))
    await asyncio.sleep(0)
    now[0] += 60.0
    model.futures["slow"].set_result(LargeAnswer(0))
    await slow
    again = asyncio.create_task(questions.submit(items("again")))  # it has to show that it has got better
    await asyncio.sleep(0)
    assert "again" in model.futures
    again.cancel()
    await asyncio.wait([again])
