"""A replica takes as many requests as it is configured for, whenever they come, and no more."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse

from pipelines.serve.config import LimitsConfig, ServeConfig
from pipelines.serve.deploy.app import door_options
from pipelines.serve.http.middleware import BodyLimit, RequestLimit, exceeds

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
            await asyncio.wait_for(scenario(held, client), 120)

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


LIMITS = LimitsConfig(max_body_bytes=100, body_timeout_s=0.02)
SCOPE: dict[str, Any] = {"type": "http", "method": "POST", "headers": []}


def values_in(value: Any) -> int:
    """Keys and values, counted one by one."""
    if isinstance(value, dict):
        return 1 + sum(1 + values_in(each) for each in value.values())
    return 1 + sum(map(values_in, value)) if isinstance(value, list) else 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text('\\",[]{}:a\n', max_size=8),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text('\\",{[ab', max_size=4), inner, max_size=5),
    max_leaves=30,
)


@settings(max_examples=150, derandomize=True, database=None)
@given(value=JSON)
def test_no_json_has_more_values_than_are_counted_and_strings_hide_none(value: Any) -> None:
    body = json.dumps(value).encode()
    number = values_in(value)
    assert number == 1 or exceeds(body, (number - 1) // 2)  # a bound on the count, from below ...
    assert not exceeds(body, 2 * number)  # ... and from above


@pytest.mark.parametrize(
    "body",
    [b"[" * 3000, b"{}," * 3000, b'"' * 4000, b'"",' * 3000, b'{"a":' * 3000, b"1," * 3000, b'"\\"",' * 3000],
    ids=lambda body: body[:6].decode(),
)
def test_floods_are_refused_unparsed_at_every_door(client_of: Callable[..., TestClient], body: bytes) -> None:
    client = client_of(max_json_values=1600)
    for path in ("/v1/predict", "/v1/explain", "/v1/feedback", "/v1/chat/completions"):
        answer = client.post(path, content=body, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["detail"]) == (
            413,
            "body: at most 1600 JSON keys and values are allowed",
        )


def test_the_largest_request_that_the_other_limits_allow_is_answered(client_of: Callable[..., TestClient]) -> None:
    client = client_of(max_json_values=12 * 129)
    label = {"item": 0, "label": "good", "text": ",[{" * 1000, "task": "movies"}
    labels = [label | {"item": number} for number in range(128)]
    assert client.post("/v1/feedback", json={"request_id": "mine", "labels": labels}).status_code == 200
    inputs = [{"text": ",[{" * 1000, "image": "", "task": "movies"}] * 128
    for item in inputs:
        item["image"] = "AAAA"
    assert client.post("/v1/predict", json={"inputs": inputs}).status_code == 200


def status_and_head(receive: Callable[[], Awaitable[Any]], app: Any) -> list[Any]:
    """What is sent to a client that sends as `receive` does."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(asyncio.wait_for(BodyLimit(app, LIMITS)(dict(SCOPE), receive, send), 120))
    return sent


async def never(*_: Any) -> None:
    raise AssertionError("the application must not be asked")


@pytest.mark.parametrize("pause_s", [60.0, 0.004], ids=["stops", "drips"])
def test_a_client_that_does_not_send_its_body_in_time_loses_its_place(pause_s: float) -> None:
    async def slow() -> Any:
        await asyncio.sleep(pause_s)
        return {"type": "http.request", "body": b" ", "more_body": True}

    start, body = status_and_head(slow, never)
    assert start["status"] == 408
    assert (b"connection", b"close") in start["headers"]
    assert json.loads(body["body"])["error"] == {"message": "body: not sent within 0.02 s", "code": 408}


def test_what_a_client_sent_before_it_left_is_not_taken_for_a_body() -> None:
    messages = [{"type": "http.request", "body": b"{}", "more_body": True}, {"type": "http.disconnect"}]

    async def leaving() -> Any:
        return messages.pop(0)

    assert status_and_head(leaving, never) == []
