"""What Ray Serve's proxies put in front of themselves."""

import asyncio
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse

from pipelines.serve.deploy.environment import middleware


def answer_of(app: Any, **headers: str) -> httpx.Response:
    """What a proxy in front of `app` answers."""
    for layer in reversed(middleware()):
        app = layer.cls(app, *layer.args, **layer.kwargs)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get("/v1/model", headers=headers)

    return asyncio.run(ask())


def test_a_dead_replica_is_503_and_worth_a_retry() -> None:
    """Promise: a request whose HTTP replica is killed is refused for now; 500 is for errors of the service itself."""

    async def dead(*_: Any) -> None:  # as Ray Serve's proxy ends where a replica is gone
        pass

    answer = answer_of(dead)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert (
        answer.json()["detail"]
        == answer.json()["error"]["message"]
        == ("the replica that handled this request has died")
    )


@pytest.mark.parametrize("status", [200, 500])
def test_what_is_answered_stays_as_it_is(status: int) -> None:
    answer = answer_of(PlainTextResponse("said", status))
    assert (answer.status_code, answer.text) == (status, "said")


def test_clients_cannot_set_the_time_limit() -> None:
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        names = [name.decode() for name, _ in scope["headers"]]
        await PlainTextResponse(" ".join(names))(scope, receive, send)

    answer = answer_of(echo, **{"X-Request-Timeout-Seconds": "1", "X-Request-Disconnect-Disabled": "?1", "X-Mine": "1"})
    assert "x-mine" in answer.text
    assert "x-request" not in answer.text
