"""Questions that are each answered on their own: one that is slow delays no other."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future

import pytest

from kcm.inputs.content import Content
from kcm.large import Item, LargeAnswer
from pipelines.serve.cascade.models.queues import Batcher, QuestionQueue, QueueFullError
from pipelines.serve.config import BatchingConfig


class Computer:
    """Remembers its batches; holds each of them until it is let go, where it is set to hold."""

    def __init__(self, hold: bool = False) -> None:
        self.batches: list[list[str]] = []
        self.started, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self._hold = hold

    def __call__(self, items: list[str]) -> list[str]:
        self.batches.append(list(items))
        self.started.release()
        if self._hold:
            assert self.go.acquire(timeout=120)
        if "poison" in items:
            raise ValueError("poison")
        return [item.upper() for item in items]


def batcher(compute: Callable[[list[str]], list[str]], size: int = 3, waiting: int = 100) -> Batcher[str, str]:
    return Batcher(compute, len, BatchingConfig(max_batch_size=size), max_waiting=waiting)


async def test_results_come_back_in_order_over_several_batches() -> None:
    compute = Computer()
    items = [letter * length for length, letter in enumerate("abcdefgh", start=1)]
    assert await batcher(compute).submit(items) == [item.upper() for item in items]
    assert max(map(len, compute.batches)) == 3


async def test_items_of_concurrent_requests_share_a_batch() -> None:
    compute = Computer()
    together = batcher(compute)
    assert await asyncio.gather(*(together.submit([item]) for item in "abc")) == [["A"], ["B"], ["C"]]
    assert compute.batches == [["a", "b", "c"]]


async def test_batch_holds_oldest_item_and_nearest_lengths() -> None:
    """Promise: a batch holds the oldest item and those nearest to it in length."""
    compute = Computer()
    await batcher(compute).submit(["xxxx", "x", "xxxxxxxx", "xxx", "xxxxx", "xx"])
    assert [sorted(map(len, batch)) for batch in compute.batches] == [[3, 4, 5], [1, 2, 8]]


async def occupied(compute: Computer, together: Batcher[str, str]) -> asyncio.Future[list[str]]:
    """A request whose batch is being computed."""
    first = asyncio.ensure_future(together.submit(["first"]))
    await asyncio.to_thread(compute.started.acquire)
    return first


async def test_items_of_a_client_that_has_left_are_not_computed() -> None:
    compute = Computer(hold=True)
    together = batcher(compute)
    first = await occupied(compute, together)
    leaving = asyncio.ensure_future(together.submit(["left"]))
    staying = asyncio.ensure_future(together.submit(["stays"]))
    await asyncio.sleep(0)
    leaving.cancel()
    compute.go.release(2)
    assert [await first, await staying] == [["FIRST"], ["STAYS"]]
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert compute.batches == [["first"], ["stays"]]


async def test_bounded_queue_refuses_overflow_immediately() -> None:
    """Promise: the queue is bounded and what does not fit is refused at once."""
    compute = Computer(hold=True)
    together = batcher(compute, waiting=2)
    first = await occupied(compute, together)
    second = asyncio.ensure_future(together.submit(["a", "b"]))
    await asyncio.sleep(0)
    assert together.num_waiting == 2
    with pytest.raises(QueueFullError):
        await together.submit(["c"])
    compute.go.release(2)
    assert [await first, await second] == [["FIRST"], ["A", "B"]]


async def test_failed_batch_fails_only_its_own_requests() -> None:
    """Promise: a batch that fails fails its own requests and the next one goes on."""
    compute = Computer()
    together = batcher(compute)
    with pytest.raises(ValueError, match="poison"):
        await together.submit(["poison"])
    assert await together.submit(["a"]) == ["A"]


class Slow:
    """A model that takes its time by a clock of its own: `seconds` for each item."""

    def __init__(self, compute: Computer, seconds: float = 1.0) -> None:
        self.compute, self.seconds, self.now = compute, seconds, 0.0

    def clock(self) -> float:
        return self.now

    def __call__(self, items: list[str]) -> list[str]:
        self.now += self.seconds * len(items)
        return self.compute(items)

    def batcher(self, size: int, max_wait_s: float) -> Batcher[str, str]:
        return Batcher(self, len, BatchingConfig(max_batch_size=size), max_wait_s=max_wait_s, clock=self.clock)


async def test_item_with_a_too_long_wait_is_refused_on_arrival() -> None:
    """Promise: an item that would wait too long is refused when it comes."""
    compute = Computer(hold=True)
    together = Slow(compute).batcher(2, max_wait_s=4.0)
    for _ in range(3):
        compute.go.release()
        assert await together.submit(["a", "b"]) == ["A", "B"]  # a second each
        compute.started.acquire()
    first = await occupied(compute, together)
    others = [asyncio.ensure_future(together.submit(["c"])) for _ in range(4)]
    await asyncio.sleep(0)
    assert together.expected_wait_s() == 4.0  # and it takes a second itself
    with pytest.raises(QueueFullError, match=r"4 items wait already, which takes about 4\.0 s"):
        await together.submit(["d"])
    for other in others[2:]:
        other.cancel()
    compute.go.release(3)
    assert [await first, await others[0], await others[1]] == [["FIRST"], ["C"], ["C"]]
    assert together.expected_wait_s() == 0.0
    compute.go.release()
    assert await together.submit(["d"]) == ["D"]


@pytest.mark.parametrize("stalled", [0, 2])
async def test_a_batch_that_stalled_makes_no_later_request_look_late(stalled: int) -> None:
    """The first batch of a replica, or one beside a replica that starts, takes seconds; the others do not."""
    compute = Computer(hold=True)
    model = Slow(compute)
    together = model.batcher(2, max_wait_s=4.0)
    for number in range(stalled + 1):
        model.seconds = 10.0 if number == stalled else 0.01
        compute.go.release()
        await together.submit(["a"])
        compute.started.acquire()
    model.seconds = 0.01
    first = await occupied(compute, together)
    second = asyncio.ensure_future(together.submit(["b"]))
    await asyncio.sleep(0)
    compute.go.release(2)
    assert [await first, await second] == [["FIRST"], ["B"]]


async def test_an_item_that_would_end_too_late_is_not_begun() -> None:
    """Promise: what its caller would give up on, and ask for again, is not computed in vain."""
    compute = Computer(hold=True)
    model = Slow(compute, seconds=3.0)
    together = model.batcher(1, max_wait_s=8.0)
    for _ in range(3):
        compute.go.release()
        await together.submit(["a"])  # three seconds each
        compute.started.acquire()
    first = await occupied(compute, together)
    second = asyncio.ensure_future(together.submit(["b"]))  # after six seconds, as it seems
    await asyncio.sleep(0)
    model.now += 5.5  # but the first stalls, and the second would be done after eight and a half
    compute.go.release()
    assert await first == ["FIRST"]
    with pytest.raises(QueueFullError, match="cannot be done within 8 s"):
        await second
    compute.go.release()
    assert await together.submit(["c"]) == ["C"]
    assert ["b"] not in compute.batches


class Model:
    """Answers nothing by itself; the test does."""

    def __init__(self) -> None:
        self.futures: dict[str, Future[LargeAnswer]] = {}

    def ask(self, item: Item) -> Future[LargeAnswer]:
        return self.futures.setdefault(item.id, Future())


def items(*ids: str) -> list[Item]:
    return [Item(each, Content(each)) for each in ids]


async def test_late_item_is_an_error_and_neighbour_is_answered() -> None:
    """Promise: nor does a stalled question take the answers of its own request along."""
    model = Model()
    model.ask(items("fine")[0]).set_result(LargeAnswer(1))
    answers = await QuestionQueue(model.ask, max_waiting=8, timeout_s=0.05).submit(items("slow", "fine"))
    await asyncio.sleep(0)
    assert model.futures["slow"].cancelled()
    late, fine = answers
    assert (late.label, late.outage, late.error) == (None, True, "no answer within 0.05 s")
    assert fine == LargeAnswer(1)


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


async def test_items_behind_a_too_long_queue_are_refused() -> None:
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


async def test_own_items_and_an_old_pace_refuse_no_request() -> None:
    """Promise: a request is not refused for its own items nor for a pace that has passed."""
    together = Slow(Computer()).batcher(8, max_wait_s=3.0)
    for _ in range(5):
        assert await together.submit(["a"] * 8) == ["A"] * 8  # eight seconds of work, and nothing before them
