"""The large model as a scripted deployment handle: what the HTTP replica makes of each of its faults."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from kcm.inputs.content import Content
from kcm.large import Item, LargeAnswer
from pipelines.serve.breaker import Breaker, BreakerConfig
from pipelines.serve.cascade.models.escalation import Escalation, LargeUnavailable
from pipelines.serve.cascade.models.queues import QueueFullError
from pipelines.serve.config import LargeReplicaConfig
from pipelines.serve.errors import BusyError, LargeFailedError, LargeTimeoutError
from pipelines.serve.release import Release

ITEMS = [Item("1", Content("a")), Item("0", Content("b"))]
RELEASE = Release(version="5", bundle="/bundle")  # type: ignore[arg-type]

Behaviour = Callable[[list[Item]], Awaitable[Any]]


class FakeResponse:
    def __init__(self, answers: Awaitable[Any]) -> None:
        self._answers, self.cancelled = answers, False

    def __await__(self) -> Any:
        return self._answers.__await__()

    def cancel(self) -> None:
        self.cancelled = True


class FakeHandle:
    """Behaves in one way after the other, in the last one for ever; remembers its calls."""

    def __init__(self, *behaviours: Behaviour) -> None:
        self._behaviours = list(behaviours)
        self.responses: list[FakeResponse] = []
        self.releases: list[Release] = []
        self.answer = self

    def remote(self, items: list[Item], release: Release) -> FakeResponse:
        behaviour = self._behaviours.pop(0) if len(self._behaviours) > 1 else self._behaviours[0]
        self.releases.append(release)
        self.responses.append(FakeResponse(behaviour(items)))
        return self.responses[-1]


def failing(error: Exception) -> Behaviour:
    async def fail(_: list[Item]) -> Any:
        raise error

    return fail


def giving(answers: object) -> Behaviour:
    async def give(_: list[Item]) -> Any:
        return answers

    return give


async def forever(_: list[Item]) -> Any:
    await asyncio.sleep(60)


async def label_of_id(items: list[Item]) -> list[LargeAnswer]:
    return [LargeAnswer(int(item.id)) for item in items]


def escalation(handle: FakeHandle, attempt_s: float = 5.0, breaker: Breaker | None = None) -> Escalation:
    config = LargeReplicaConfig(attempt_timeout_s=attempt_s)
    return Escalation(handle, RELEASE, 2, config, breaker or Breaker(BreakerConfig()))  # type: ignore[arg-type]


def ask(*behaviours: Behaviour, timeout_s: float = 5.0) -> list[LargeAnswer] | LargeUnavailable:
    return asyncio.run(escalation(FakeHandle(*behaviours)).ask(ITEMS, timeout_s))


async def test_stalled_call_is_cancelled_and_retried() -> None:
    """Promise: a stalled call is given up and cancelled and another one is made."""
    handle = FakeHandle(forever, label_of_id)
    answers = await escalation(handle, attempt_s=0.01).ask(ITEMS, 5.0)
    assert answers == [LargeAnswer(1), LargeAnswer(0)]
    assert [response.cancelled for response in handle.responses] == [True, False]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RayTaskError("answer", "a secret traceback", ValueError("a secret")), "failed: ValueError"),
        (RayTaskError("answer", "", TimeoutError("inside the model")).as_instanceof_cause(), "failed: TimeoutError"),
        (RayActorError(), "failed: RayActorError"),
        (DeploymentUnavailableError("large"), "failed: DeploymentUnavailableError"),  # type: ignore[arg-type]
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
async def test_failures_are_retried_and_hide_their_details(error: Exception, reason: str) -> None:
    """Promise: every failure is tried twice and has a reason without its details."""
    handle = FakeHandle(failing(error))
    unavailable = await escalation(handle).ask(ITEMS, 5.0)
    assert isinstance(unavailable, LargeUnavailable)
    assert len(handle.responses) == 2
    assert unavailable.error is LargeFailedError
    assert reason in unavailable.reason
    assert "secret" not in unavailable.reason


@pytest.mark.parametrize(
    "error", [BackPressureError(3, 2), RayTaskError("answer", "", QueueFullError("9 items wait")).as_instanceof_cause()]
)
async def test_full_queue_is_not_retried_and_shows_no_fault(error: Exception) -> None:
    """Promise: a full queue is not asked again and says nothing of the large model."""
    handle, breaker = FakeHandle(failing(error)), Breaker(BreakerConfig(failures=1))
    unavailable = await escalation(handle, breaker=breaker).ask(ITEMS, 5.0)
    assert isinstance(unavailable, LargeUnavailable)
    assert (unavailable.error, len(handle.responses), breaker.state) == (BusyError, 1, "closed")


@pytest.mark.parametrize(
    "bad",
    [
        LargeAnswer(2),
        LargeAnswer(-1),
        LargeAnswer(0, np.array([np.nan, 1.0], np.float32)),
        LargeAnswer(0, np.array([np.inf, 0.0], np.float32)),
        LargeAnswer(0, np.array([1.0], np.float32)),
        LargeAnswer(0, np.array([-0.5, 1.5], np.float32)),
    ],
    ids=str,
)
def test_a_wrong_label_and_nan_fail_their_own_item_alone(bad: LargeAnswer) -> None:
    """Promise: what makes no sense answers nobody, and harms no other item of its request."""
    answers = ask(giving([bad, LargeAnswer(1, np.array([0.1, 0.9], np.float32))]))
    assert isinstance(answers, list)
    assert [answer.label for answer in answers] == [None, 1]
    assert answers[0].error


async def test_after_repeated_failures_the_large_model_is_left_alone() -> None:
    handle = FakeHandle(failing(RayActorError()))
    asking = escalation(handle, breaker=Breaker(BreakerConfig(failures=2)))
    outcomes = [await asking.ask(ITEMS, 5.0) for _ in range(5)]
    assert all(isinstance(outcome, LargeUnavailable) for outcome in outcomes)
    assert "calls to it are paused" in outcomes[-1].reason  # type: ignore[union-attr]
    assert len(handle.responses) == 3  # two requests, of which the first one took the second's retry


@pytest.mark.parametrize(
    ("answers", "state"),
    [
        ([LargeAnswer(None, error="answered 'x'", off_label=True)] * 2, "closed"),
        ([LargeAnswer(None, error="the text is empty")] * 2, "closed"),
        ([LargeAnswer(None, error="the budget is spent")] * 2, "closed"),
        ([LargeAnswer(5)] * 2, "closed"),
        ([LargeAnswer(None, error="status 503", outage=True)] * 2, "open"),
        ([LargeAnswer(None, error="status 503", outage=True), LargeAnswer(None, error="the text is empty")], "open"),
        ([LargeAnswer(None, error="status 503", outage=True), LargeAnswer(1)], "closed"),
    ],
    ids=["off-label", "empty", "no budget", "no such label", "outage", "outage and empty", "outage and an answer"],
)
async def test_only_a_service_that_fails_opens_the_breaker(answers: list[LargeAnswer], state: str) -> None:
    """Promise: whatever one caller makes the model say, the others are still answered by it."""
    breaker = Breaker(BreakerConfig(failures=1))
    await escalation(FakeHandle(giving(answers)), breaker=breaker).ask(ITEMS, 5.0)
    assert breaker.state == state


async def test_where_all_calls_time_out_they_are_not_all_made_again() -> None:
    """Promise: an overloaded model is not asked twice for everything."""
    handle = FakeHandle(forever)
    asking = escalation(handle, attempt_s=0.02, breaker=Breaker(BreakerConfig(failures=1000)))
    await asyncio.gather(*(asking.ask(ITEMS, 5.0) for _ in range(50)))
    assert len(handle.responses) <= 50 + 5  # a token, and some more should this machine stand still for seconds


async def test_client_that_leaves_cancels_without_breaker_effect() -> None:
    """Promise: a client that leaves cancels its escalation and tells the breaker nothing."""
    breaker = Breaker(BreakerConfig(failures=1))

    async def leave(handle: FakeHandle) -> None:
        asking = asyncio.ensure_future(escalation(handle, breaker=breaker).ask(ITEMS, 5.0))
        await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    handle = FakeHandle(forever)
    await leave(handle)
    assert handle.responses[0].cancelled
    assert breaker.state == "closed"


async def test_no_second_call_is_made_once_the_time_is_up() -> None:
    handle = FakeHandle(forever)
    unavailable = await escalation(handle).ask(ITEMS, 0.01)
    assert isinstance(unavailable, LargeUnavailable)
    assert unavailable.error is LargeTimeoutError
    assert [response.cancelled for response in handle.responses] == [True]


async def test_a_probe_goes_through_an_open_breaker() -> None:
    breaker = Breaker(BreakerConfig(failures=1))
    call = breaker.admit()
    assert call is not None
    breaker.record(call, False)
    handle = FakeHandle(giving([LargeAnswer(0)]))
    assert await escalation(handle, breaker=breaker).probe(5.0) is None
