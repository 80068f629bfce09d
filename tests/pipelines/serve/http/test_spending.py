"""Calls that pass through and the served large model spend one budget, which no call exceeds."""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from kcm.inputs.content import Content
from kcm.large import Item
from kcm.large.adapters.openai import OpenAiConfig, OpenAiModel
from kcm.large.response_cache import ResponseCache
from kcm.logs.template import Template
from pipelines.serve.cascade.models.large import budget_store
from pipelines.serve.config import FeedbackConfig, ProxyConfig
from pipelines.serve.http import spending
from pipelines.serve.http.spending import StreamedReply, Usage
from tests.fake_upstream import FakeUpstream, Turn, completion
from tests.pipelines.serve.stubs import spent
from tests.waiting import wait_until

PRICES = {"m": (1.0, 10.0), "e": (0.5, 0.0)}
JSON_TYPE = "application/json"
JSON = {"Content-Type": JSON_TYPE}
EVENTS = {"Content-Type": "text/event-stream"}


@pytest.fixture
def paying(
    client_of: Callable[..., TestClient], upstream: FakeUpstream, feedback: FeedbackConfig
) -> Iterator[Callable[..., TestClient]]:
    """A client of a service with this budget."""
    opened: list[TestClient] = []

    def client(**budget: Any) -> TestClient:
        template = Template(before="Review: ")
        options = {"upstream": upstream.base_url, "api_key_env": None, "template": template, "prices": PRICES}
        opened.append(client_of(proxy=ProxyConfig(**options | budget), feedback=feedback).__enter__())
        return opened[-1]

    yield client
    for each in opened:
        each.__exit__(None, None, None)


def ask(client: TestClient, path: str = "chat/completions", **more: Any) -> Any:
    return client.post(f"/v1/{path}", json={"model": "m", "messages": [], "max_tokens": 10} | more)


def test_call_costs_its_usage(paying: Any, upstream: FakeUpstream, feedback: FeedbackConfig) -> None:
    """A million tokens read at 1 and written at 10; an embedding reads alone."""
    client = paying(max_cost=1.0)
    upstream.plan(completion("x", usage={"prompt_tokens": 100, "completion_tokens": 10}))
    assert ask(client).status_code == 200
    assert spent(upstream, feedback) == (1, pytest.approx(200e-6))
    upstream.plan(completion("x", usage={"prompt_tokens": 100, "total_tokens": 100}))
    assert ask(client, "embeddings", model="e", input="x").status_code == 200
    assert spent(upstream, feedback) == (2, pytest.approx(250e-6))
    upstream.plan(completion("x", usage={"input_tokens": 10, "output_tokens": 1}))
    assert ask(client, "responses", input="x", max_output_tokens=5).status_code == 200
    assert spent(upstream, feedback) == (3, pytest.approx(270e-6))


def test_stream_costs_the_usage_of_its_last_event(
    paying: Any, upstream: FakeUpstream, feedback: FeedbackConfig
) -> None:
    client = paying(max_cost=1.0)
    chunks = [{"choices": [{}], "usage": None}, {"choices": [], "usage": {"prompt_tokens": 50, "completion_tokens": 5}}]
    events = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    upstream.plan(Turn(body=events, headers=EVENTS))
    assert ask(client, stream=True).text == events
    assert spent(upstream, feedback) == (1, pytest.approx(100e-6))


def test_ended_call_leaves_room_for_the_next_at_once(paying: Any, upstream: FakeUpstream) -> None:
    """Two calls fit at what they cost, not at what they are booked at."""
    client = paying(max_cost=300e-6)
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    upstream.otherwise = lambda _: Turn(body=json.dumps({"choices": [], "usage": usage}), headers=JSON)
    assert [ask(client).status_code for _ in range(5)] == [200] * 5


def test_call_of_a_client_that_leaves_is_settled(
    paying: Any, upstream: FakeUpstream, feedback: FeedbackConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that is cancelled after its reply does not take the settling with it, however slow that is."""
    settle = ResponseCache.settle

    def settle_slowly(*args: Any) -> None:
        time.sleep(0.5)
        settle(*args)

    monkeypatch.setattr(ResponseCache, "settle", settle_slowly)
    upstream.otherwise = lambda _: completion("x", headers=JSON)
    assert ask(paying(max_cost=1.0)).status_code == 200
    wait_until(lambda: spent(upstream, feedback) == (1, pytest.approx(200e-6)))


@pytest.mark.parametrize(
    "part", [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}, {"type": "input_image", "file_id": "f"}]
)
def test_picture_is_booked_at_the_most_that_a_model_reads(
    paying: Any, upstream: FakeUpstream, feedback: FeedbackConfig, part: dict[str, Any]
) -> None:
    """Promise: a picture costs as its pixels, so the few bytes of its address do not bound it."""
    client = paying(max_cost=1.0)
    upstream.plan(Turn(body="{}", headers=JSON))
    response = ask(client, messages=[{"role": "user", "content": [part, part]}])
    most = len(response.request.content) + 2 * 50_000 + 64 + 10 * 10
    assert spent(upstream, feedback) == (1, pytest.approx(most / 1e6))
    assert ask(paying(max_cost=0.04), messages=[{"role": "user", "content": [part]}]).status_code == 402


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("file", {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]}),
        ("input_file", {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "https://x"}]}]}),
        ("previous_response_id", {"input": "x", "previous_response_id": "r"}),
        ("prompt", {"prompt": {"id": "p"}}),
    ],
)
def test_question_of_unknown_size_is_refused_under_max_cost(
    paying: Any, upstream: FakeUpstream, name: str, more: dict[str, Any]
) -> None:
    """Promise: what the upstream adds to a question has no bound, so a budget in currency does not let it pass."""
    refused = ask(paying(max_cost=1.0), "responses", **more)
    assert (refused.status_code, refused.json()["error"]["message"].partition(":")[0]) == (403, name)
    assert upstream.requests == []
    upstream.plan(completion("x", headers=JSON))
    assert ask(paying(max_calls=9), "responses", **more).status_code == 200


def test_stream_without_a_usage_costs_the_most(paying: Any, upstream: FakeUpstream, feedback: FeedbackConfig) -> None:
    """Nobody knows what it cost: the budget counts what it may have cost."""
    client = paying(max_cost=1.0)
    upstream.plan(Turn(body="data: [DONE]\n\n", headers=EVENTS))
    response = ask(client, stream=True, max_tokens=100, n=2)
    most = len(response.request.content) + 64 + 10 * 2 * 100
    assert spent(upstream, feedback) == (1, pytest.approx(most / 1e6))


@pytest.mark.parametrize("status", [400, 401, 429, 500, 307])
def test_refused_call_costs_nothing(paying: Any, upstream: FakeUpstream, feedback: FeedbackConfig, status: int) -> None:
    upstream.plan(Turn(status, "{}", JSON))
    assert ask(paying(max_calls=9)).status_code >= 400
    assert spent(upstream, feedback) == (0, 0)


def test_spent_budget_lets_no_call_through(paying: Any, upstream: FakeUpstream) -> None:
    client = paying(max_calls=2)
    assert [ask(client, "embeddings").status_code for _ in range(3)] == [200, 200, 402]
    assert len(upstream.requests) == 2
    assert ask(client).json()["error"] == {"message": "the budget is spent: max_calls = 2", "code": 402}
    assert client.get("/v1/models").status_code == 200  # costs nothing
    label = [{"role": "user", "content": "Review: a film"}]
    assert ask(client, messages=label).headers["x-kcm-route"] == "small"


def test_call_that_could_exceed_the_budget_is_not_made(
    paying: Any, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what a call asks for; without a limit of its own, by MAX_OUTPUT_TOKENS."""
    monkeypatch.setattr(spending, "MAX_OUTPUT_TOKENS", 200)
    client = paying(max_cost=0.001)
    for more in ({"max_tokens": 100}, {"n": 50}, {"max_tokens": None}, {"max_tokens": 1, "max_completion_tokens": 100}):
        assert ask(client, **more).status_code == 402
    assert ask(client, "completions", prompt=["a", "b"] * 10).status_code == 402
    assert upstream.requests == []
    assert ask(client, max_tokens=20).status_code == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [({"model": "unknown"}, 403), *((body, 422) for body in ({}, {"model": 7}, [], {"model": "m", "max_tokens": 1e6}))],
    ids=str,
)
def test_call_without_a_price_is_not_made(paying: Any, upstream: FakeUpstream, body: Any, status: int) -> None:
    answer = paying(max_cost=1.0).post("/v1/embeddings", json=body)
    assert (answer.status_code, upstream.requests) == (status, [])


def test_locked_database_lets_no_call_through(paying: Any, upstream: FakeUpstream, tmp_path: Path) -> None:
    """What cannot be booked is not paid for; the cascade still answers."""
    client = paying(max_cost=1.0)
    with closing(sqlite3.connect(tmp_path / "log.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert (ask(client).status_code, upstream.requests) == (503, [])
        label = [{"role": "user", "content": "Review: a film"}]
        assert ask(client, messages=label).headers["x-kcm-route"] == "small"


def test_two_models_in_a_body_are_refused(paying: Any, upstream: FakeUpstream) -> None:
    """The upstream may read the dear one where kcm reads the cheap one."""
    body = b'{"model": "dear", "messages": [{"role": "user", "content": "x"}], "model": "m"}'
    answer = paying(max_cost=1.0).post("/v1/chat/completions", content=body, headers={"content-type": JSON_TYPE})
    assert (answer.status_code, upstream.requests) == (422, [])


def test_large_model_and_other_calls_share_the_budget(
    paying: Any, upstream: FakeUpstream, feedback: FeedbackConfig
) -> None:
    """The bundle's large model takes the operator's key, prices and account, and finds the budget spent by others."""
    proxy = ProxyConfig(upstream=upstream.base_url, api_key_env=None, template=Template(), prices=PRICES, max_calls=2)
    large = OpenAiConfig(model="m", base_url=upstream.base_url).at((proxy.server,))
    model = OpenAiModel(large, ["positive", "negative"], budget_store(large.upstream, feedback))
    client = paying(max_calls=2)
    assert ask(client).status_code == 200
    (first,) = model.answer([Item("1", Content("a film"))])
    assert (first.label, first.cost.currency) == (0, pytest.approx(200e-6))
    assert ask(client).status_code == 402
    (second,) = model.answer([Item("2", Content("another"))])
    assert (second.label, second.error) == (None, "the budget is spent: max_calls = 2")


def test_cost_limit_needs_prices(upstream: FakeUpstream) -> None:
    with pytest.raises(ValidationError, match="max_cost needs prices"):
        ProxyConfig(upstream=upstream.base_url, template=Template(), max_cost=1.0)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_usage_is_found_however_a_stream_is_cut(size: int) -> None:
    completed = {"type": "response.completed", "response": {"usage": {"input_tokens": 3, "output_tokens": 4}}}
    events = f'event: x\r\ndata: {{"usage": null}}\r\n\r\ndata: {json.dumps(completed)}\r\n\r\n'.encode()
    reader = StreamedReply()
    for start in range(0, len(events), size):
        reader.feed(events[start : start + size])
    assert reader.usage == Usage(3, 4)


@pytest.mark.parametrize("reply", [None, [], {"usage": 1}, {"usage": {"prompt_tokens": -1}}, {"response": "x"}])
def test_reply_without_a_usage(reply: Any) -> None:
    assert Usage.of(reply) is None
