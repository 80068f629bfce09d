"""Promise: however many requests one address begins, a request of another address begins next."""

import asyncio
from typing import Any

import pytest

from pipelines.serve.http import turns
from pipelines.serve.http.turns import MAX_BEGINNING, InTurn

RESPONSE_START = {"type": "http.response.start", "status": 200, "headers": []}


class App:
    """Notes who begins. Nobody's response starts before `answer` is set."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.answer = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.begun.append(scope["client"][0])
        await self.answer.wait()
        await send(RESPONSE_START)


async def send(message: Any) -> None:
    """Nobody listens."""


def request(app: InTurn, address: str) -> asyncio.Task[None]:
    return asyncio.ensure_future(app({"type": "http", "client": (address, 1)}, send, send))


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_another_address_does_not_wait_behind_a_crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "TURN_S", 60.0)
    app = App()
    in_turn = InTurn(app)
    crowd = [request(in_turn, "crowd") for _ in range(MAX_BEGINNING + 100)]
    await settle()
    others = [request(in_turn, "other") for _ in range(2)]
    await settle()
    assert app.begun == ["crowd"] * MAX_BEGINNING
    app.answer.set()
    await asyncio.gather(*crowd, *others)
    assert sorted(app.begun) == ["crowd"] * len(crowd) + ["other"] * 2
    assert app.begun[MAX_BEGINNING : MAX_BEGINNING + 4] == ["crowd", "other"] * 2
    assert not in_turn._waiting
    assert in_turn._num_beginning == 0


async def test_a_request_that_never_answers_gives_its_turn_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "TURN_S", 0.01)
    app = App()
    in_turn = InTurn(app)
    silent = [request(in_turn, "crowd") for _ in range(3 * MAX_BEGINNING)]
    async with asyncio.timeout(10):
        while len(app.begun) < len(silent):
            await asyncio.sleep(0.01)
    for each in silent:  # their servers stop
        each.cancel()
    await asyncio.gather(*silent, return_exceptions=True)
    assert in_turn._num_beginning == 0


async def test_a_request_that_fails_or_leaves_while_it_waits_costs_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "TURN_S", 60.0)

    async def fail(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        raise ValueError("fails")

    in_turn = InTurn(fail)
    failing = [request(in_turn, "crowd") for _ in range(2 * MAX_BEGINNING)]
    await asyncio.sleep(0)
    leaving = request(in_turn, "other")
    await asyncio.sleep(0)
    leaving.cancel()
    answers = await asyncio.gather(*failing, leaving, return_exceptions=True)
    assert [type(each) for each in answers] == [ValueError] * len(failing) + [asyncio.CancelledError]
    assert in_turn._num_beginning == 0


async def test_what_is_not_a_request_needs_no_turn() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    await InTurn(app)({"type": "lifespan"}, send, send)
    assert seen == ["lifespan"]
