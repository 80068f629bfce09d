"""A request of the template that the small model does not keep: the upstream gets it as its caller wrote it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from kcm.cascade.policy import Policy
from kcm.large import LargeAnswer
from kcm.logs.reading import ReplyReading
from kcm.logs.template import Message, Template
from pipelines.serve.config import FeedbackConfig, ProxyConfig, ServeConfig
from pipelines.serve.http.api import create_api
from pipelines.serve.log.entries import LoggedDecision
from tests.fake_upstream import FakeUpstream, Turn, completion
from tests.pipelines.serve.stubs import StubEscalation, StubSide, service_of, spent, version_of

SYSTEM = "Is the review good or bad? Answer as JSON with the field verdict and the reason."
TEMPLATE = Template(
    messages=(Message(role="system", content=SYSTEM),), before="Review: ", reading=ReplyReading(place="field verdict")
)
JSON, EVENTS = {"Content-Type": "application/json"}, {"Content-Type": "text/event-stream"}
OWN_WORDS = '{"verdict": "Good",  "reason": "the cast"}'


class Decisions:
    """A log that remembers the decisions."""

    available = True

    def __init__(self) -> None:
        self.rows: list[LoggedDecision] = []

    def payload(self, *_: object) -> None:
        return None

    def add_decisions(self, rows: list[LoggedDecision]) -> None:
        self.rows += rows

    def labels(self) -> list[tuple[str, str | None]]:
        return [(row.route, row.large_label) for row in self.rows]


@pytest.fixture
def decisions() -> Decisions:
    return Decisions()


@pytest.fixture
def served(upstream: FakeUpstream, feedback: FeedbackConfig, decisions: Any) -> Iterator[Callable[..., TestClient]]:
    """A client of a service whose small model keeps the text `keep` alone, and escalates any other."""
    opened: list[TestClient] = []

    def client(policy: Policy | None = None, **budget: Any) -> TestClient:
        options = {"api_key_env": None, "template": TEMPLATE, "prices": {"gpt-4o-mini": (1.0, 10.0)}, "max_cost": 1.0}
        proxy = ProxyConfig(upstream=upstream.base_url, **options | budget)
        config = ServeConfig(proxy=proxy, allowed_hosts=("testserver",), feedback=feedback)
        version = version_of(StubSide(policy), StubEscalation(LargeAnswer(0)), config)
        service: Any = asyncio.run(service_of(version, log=decisions))
        opened.append(TestClient(create_api(service, config)).__enter__())
        return opened[-1]

    yield client
    for each in opened:
        each.__exit__(None, None, None)


def ask(client: TestClient, text: str = "a film", **more: Any) -> Any:
    """The reply to a request with the caller's own parameters and spaces."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"Review: {text}"}]
    body = {"model": "gpt-4o-mini", "messages": messages, "temperature": 0.3, "max_tokens": 50} | more
    return client.post("/v1/chat/completions", content=json.dumps(body, indent=2), headers=JSON)


def test_upstream_gets_the_callers_own_request(
    served: Callable[..., TestClient], upstream: FakeUpstream, feedback: FeedbackConfig
) -> None:
    """Byte for byte, and the caller gets the upstream's reply, byte for byte; it is booked once."""
    client = served()
    upstream.otherwise = lambda _: completion(OWN_WORDS, headers={})
    reply = ask(client)
    assert (reply.status_code, reply.headers["x-kcm-route"]) == (200, "large")
    (request,) = upstream.requests
    assert upstream.headers[0]["content-length"] == str(len(json.dumps(request, indent=2)))
    assert (request["temperature"], request["messages"][0]["content"]) == (0.3, SYSTEM)
    assert reply.content == completion(OWN_WORDS, headers={}).body.encode()  # type: ignore[union-attr]
    assert spent(upstream, feedback) == (1, pytest.approx((100 * 1.0 + 10 * 10.0) / 1e6))


def test_label_in_the_reply_is_the_answer(
    served: Callable[..., TestClient], upstream: FakeUpstream, decisions: Decisions
) -> None:
    """The decision log has the label of the reply, in the letters of the bundle; a kept text asks nobody."""
    client = served()
    upstream.otherwise = lambda _: completion(OWN_WORDS, headers={})
    assert ask(client, "keep").headers["x-kcm-route"] == "small"
    assert upstream.requests == []
    reply = ask(client)
    assert decisions.labels() == [("small", None), ("large", "good")]
    assert decisions.rows[-1].origin.request_id == reply.headers["x-kcm-request-id"]


def test_repeated_request_is_paid_once(
    served: Callable[..., TestClient], upstream: FakeUpstream, feedback: FeedbackConfig, decisions: Decisions
) -> None:
    """The same bytes come back from the store; another temperature is another request."""
    client = served()
    upstream.otherwise = lambda _: completion(OWN_WORDS)
    first, again = ask(client), ask(client)
    assert (again.content, again.headers["x-kcm-route"]) == (first.content, "large")
    assert (len(upstream.requests), spent(upstream, feedback)[0]) == (1, 1)
    assert decisions.labels() == [("large", "good")] * 2
    ask(client, temperature=0.9)
    assert spent(upstream, feedback)[0] == len(upstream.requests) == 2


def test_service_without_a_budget_keeps_replies_too(served: Callable[..., TestClient], upstream: FakeUpstream) -> None:
    client = served(max_cost=None)
    upstream.otherwise = lambda _: completion(OWN_WORDS)
    assert ask(client).content == ask(client).content
    assert len(upstream.requests) == 1


def test_stream_of_the_upstream_is_relayed(
    served: Callable[..., TestClient], upstream: FakeUpstream, feedback: FeedbackConfig, decisions: Decisions
) -> None:
    """Its bytes reach the caller as they are, its text is read for the label, and its usage is booked."""
    client = served()
    parts = [OWN_WORDS[:9], OWN_WORDS[9:]]
    events = [{"choices": [{"delta": {"content": part}}]} for part in parts]
    events.append({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}})
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    upstream.plan(Turn(body=body, headers=EVENTS))
    reply = ask(client, stream=True)
    assert (reply.text, reply.headers["x-kcm-route"]) == (body, "large")
    assert decisions.labels() == [("large", "good")]
    assert spent(upstream, feedback) == (1, pytest.approx((7 * 1.0 + 2 * 10.0) / 1e6))


def test_reply_without_a_label_reaches_its_caller(
    served: Callable[..., TestClient], upstream: FakeUpstream, decisions: Decisions
) -> None:
    """As without kcm; it is no decision, since there is no label to learn from."""
    client = served()
    upstream.plan(completion("I cannot say."), Turn(400, '{"error": {"message": "its own"}}', JSON))
    assert ask(client).json()["choices"][0]["message"]["content"] == "I cannot say."
    refused = ask(client, temperature=9)
    assert (refused.status_code, refused.json()["error"]["message"]) == (400, "its own")
    assert decisions.rows == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_upstream_in_trouble_is_answered_by_the_policy(
    served: Callable[..., TestClient], upstream: FakeUpstream, status: int
) -> None:
    """The small model answers and says so; with `error` the caller gets the upstream's own error."""
    error = Turn(status, '{"error": {"message": "its own"}}', JSON | {"Retry-After": "7"})
    upstream.otherwise = lambda _: error
    degraded = ask(served())
    assert (degraded.status_code, degraded.headers["x-kcm-route"]) == (200, "small_degraded")
    refused = ask(served(Policy(on_large_failure="error")))
    assert (refused.status_code, refused.json()["error"]["message"]) == (status, "its own")
    assert refused.headers["retry-after"] == "7"


def test_spent_budget_asks_nobody(served: Callable[..., TestClient], upstream: FakeUpstream) -> None:
    client = served(Policy(on_large_failure="error"), max_cost=1e-6)
    assert ask(client).status_code == 402
    assert upstream.requests == []
