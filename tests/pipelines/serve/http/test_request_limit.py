"""A replica takes as many requests as it is configured for, whenever they come, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse

from pipelines.serve.config import ServeConfig
from pipelines.serve.deploy.app import door_options
from pipelines.serve.http.middleware import RequestLimit

CONFIG = ServeConfig(max_ongoing_requests=3, max_queued_requests=2, max_batch_size=2)


class Held:
    """An application whose requests end when they are let go."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self.go = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self.go.wait()
            await PlainTextResponse("done")(scope, receive, send)
        finally:
            self.inside -= 1


def with_room(scenario: Callable[[Held, httpx.AsyncClient], Awaitable[None]]) -> None:
    async def run() -> None:
        held = Held()
        transport = httpx.ASGITransport(app=RequestLimit(held, CONFIG))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            await asyncio.wait_for(scenario(held, client), 20)

    asyncio.run(run())


async def asking(client: httpx.AsyncClient, number: int) -> list[asyncio.Task[httpx.Response]]:
    asked = [asyncio.create_task(client.get("/v1/model")) for _ in range(number)]
    for _ in range(20):
        await asyncio.sleep(0)
    return asked


def test_what_comes_at_one_moment_is_refused_only_beyond_the_room_for_it() -> None:
    async def scenario(held: Held, client: httpx.AsyncClient) -> None:
        asked = await asking(client, 8)
        refused = [task.result() for task in asked if task.done()]
        assert [(each.status_code, each.headers["retry-after"]) for each in refused] == [(429, "1")] * 3
        held.go.set()
        assert sorted(response.status_code for response in await asyncio.gather(*asked)) == [200] * 5 + [429] * 3
        assert held.most == 3
        assert [task.result().status_code for task in await asking(client, 5)] == [200] * 5

    with_room(scenario)


def test_clients_that_leave_give_their_places_back() -> None:
    async def scenario(held: Held, client: httpx.AsyncClient) -> None:
        for task in await asking(client, 5):  # some are worked on, some wait
            task.cancel()
        asked = await asking(client, 5)
        held.go.set()
        assert [response.status_code for response in await asyncio.gather(*asked)] == [200] * 5

    with_room(scenario)


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_a_busy_service_still_answers_its_probes(path: str) -> None:
    async def scenario(held: Held, client: httpx.AsyncClient) -> None:
        asked = await asking(client, 5)
        probe = asyncio.create_task(client.get(path))
        await asyncio.sleep(0.01)
        held.go.set()
        assert (await probe).status_code == 200
        await asyncio.gather(*asked)

    with_room(scenario)


def test_ray_lets_in_whom_the_room_refuses() -> None:
    options = door_options(CONFIG)
    assert min(options["max_ongoing_requests"], options["max_queued_requests"]) > 3 + 2
