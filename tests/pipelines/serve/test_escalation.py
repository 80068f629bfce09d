from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import pytest
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from kcm.large import Item, LargeAnswer
from pipelines.serve.escalation import Escalation, Trouble

ITEMS = [Item("1", "a"), Item("2", "b")]


class FakeResponse:
    """What a deployment handle returns: something to await, that can be cancelled."""

    def __init__(self, outcome: Awaitable[Any]) -> None:
        self._outcome, self.cancelled = outcome, False

    def __await__(self) -> Generator[Any, None, Any]:
        return self._outcome.__await__()

    def cancel(self) -> None:
        self.cancelled = True


class FakeHandle:
    """A handle whose method `answer` runs a coroutine function."""

    def __init__(self, answer: Callable[[list[Item]], Awaitable[Any]]) -> None:
        self._answer = answer
        self.responses: list[FakeResponse] = []

    @property
    def answer(self) -> FakeHandle:
        return self

    def remote(self, items: list[Item]) -> FakeResponse:
        self.responses.append(FakeResponse(self._answer(items)))
        return self.responses[-1]


def failing(error: Exception) -> FakeHandle:
    async def answer(items: list[Item]) -> list[LargeAnswer]:
        raise error

    return FakeHandle(answer)


async def forever(items: list[Item]) -> list[LargeAnswer]:
    await asyncio.sleep(3600)
    return []


async def label_of_id(items: list[Item]) -> list[LargeAnswer]:
    return [LargeAnswer(int(item.id)) for item in items]


def ask(handle: FakeHandle, items: list[Item] = ITEMS, timeout_s: float = 5.0) -> list[LargeAnswer] | Trouble:
    return asyncio.run(Escalation(handle).ask(items, timeout_s))  # type: ignore[arg-type]


def test_answers_come_back_in_order() -> None:
    assert ask(FakeHandle(label_of_id)) == [LargeAnswer(1), LargeAnswer(2)]


def test_nothing_escalated_is_nothing_asked() -> None:
    handle = failing(RuntimeError("must not be called"))
    assert ask(handle, []) == []
    assert handle.responses == []


def test_a_slow_large_model_is_given_up_and_cancelled() -> None:
    handle = FakeHandle(forever)
    trouble = ask(handle, timeout_s=0.01)
    assert isinstance(trouble, Trouble)
    assert trouble.status == 504
    assert handle.responses[0].cancelled


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BackPressureError(3, 2), "no room"),
        (RayTaskError("answer", "a secret traceback", ValueError("a secret")), "failed: ValueError"),
        (RayTaskError("answer", "", TimeoutError("inside the model")).as_instanceof_cause(), "failed: TimeoutError"),
        (RayActorError(), "failed: RayActorError"),
        (DeploymentUnavailableError("large"), "failed: DeploymentUnavailableError"),  # type: ignore[arg-type]
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_every_failure_has_a_reason_without_its_details(error: Exception, reason: str) -> None:
    trouble = ask(failing(error))
    assert isinstance(trouble, Trouble)
    assert trouble.status == 503
    assert reason in trouble.reason
    assert "secret" not in trouble.reason


def test_a_wrong_number_of_answers_is_a_failure() -> None:
    async def one(items: list[Item]) -> list[LargeAnswer]:
        return [LargeAnswer(0)]

    trouble = ask(FakeHandle(one))
    assert isinstance(trouble, Trouble)
    assert "1 answers to 2 items" in trouble.reason


def test_a_client_that_leaves_cancels_its_escalation() -> None:
    async def leave(handle: FakeHandle) -> None:
        asking = asyncio.ensure_future(Escalation(handle).ask(ITEMS, 5.0))  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    handle = FakeHandle(forever)
    asyncio.run(leave(handle))
    assert handle.responses[0].cancelled
