"""Bodies are bounded before anything parses them: in bytes, in values, and in the time that they take to come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.serve.config import LimitsConfig
from pipelines.serve.http.middleware import BodyLimit, exceeds

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


@settings(max_examples=400, derandomize=True, database=None)
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

    asyncio.run(asyncio.wait_for(BodyLimit(app, LIMITS)(dict(SCOPE), receive, send), 10))
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
