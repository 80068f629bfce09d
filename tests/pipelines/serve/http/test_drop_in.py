"""In place of an LLM's address: the template's requests are the cascade's, everything else is the upstream's."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from kcm.bundle.answers import Input
from kcm.inputs.content import Content
from kcm.large.prompts import answer_schema
from kcm.logs.template import Message, Template
from pipelines.serve.config import AuthConfig, LargeReplicaConfig, ProxyConfig, ServeConfig
from tests.fake_upstream import FakeUpstream, Turn

SYSTEM = "Is the review good or bad? Answer with one word."
TEMPLATE = Template(
    messages=(Message(role="system", content=SYSTEM),), before="Review: ", after=" Verdict:", replies={"good": "GOOD."}
)
KEY, OPERATORS_KEY = "the-caller's-key", "sk-operator-0123456789abcdef"


def proxy_of(upstream: FakeUpstream, **options: Any) -> ProxyConfig:
    return ProxyConfig(upstream=upstream.base_url, **{"template": TEMPLATE, "api_key_env": "UPSTREAM_KEY"} | options)


@pytest.fixture(autouse=True)
def operators_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", OPERATORS_KEY)


@pytest.fixture
def client(client_of: Callable[..., TestClient], upstream: FakeUpstream) -> Iterator[TestClient]:
    with client_of(proxy=proxy_of(upstream), max_text_length=10) as client:  # one event loop for all its requests
        yield client


@pytest.fixture
def chat(client: TestClient) -> openai.OpenAI:
    return openai.OpenAI(base_url="http://testserver/v1", api_key=KEY, http_client=client, max_retries=0)


def request(text: str = "a film", **changes: Any) -> dict[str, Any]:
    """A chat completion of the template; a change to None leaves a field out."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"Review: {text} Verdict:"}]
    values = {"model": "gpt-4o-mini", "messages": messages, "temperature": 0} | changes
    return {name: value for name, value in values.items() if value is not None}


@pytest.mark.parametrize("model", ["gpt-4o-mini", "some/other-model"])
def test_template_is_answered_in_its_words(
    chat: openai.OpenAI, service: Any, upstream: FakeUpstream, model: str
) -> None:
    """The cascade sees the text alone, and the caller gets the reply that the LLM would have worded."""
    raw = chat.chat.completions.with_raw_response.create(**request(model=model))
    answer = raw.parse()
    assert service.seen == [Input(Content("a film"))]
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("GOOD.", "stop")
    assert (answer.model, raw.headers["x-kcm-route"]) == (model, "small")
    assert upstream.paths == []


def test_template_streams(chat: openai.OpenAI, upstream: FakeUpstream) -> None:
    chunks = list(chat.chat.completions.create(**request(stream=True, stream_options={"include_usage": True})))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "GOOD."
    assert {chunk.model for chunk in chunks} == {"gpt-4o-mini"}
    assert upstream.paths == []


def test_pages_of_other_sites_cannot_ask(client: TestClient, service: Any) -> None:
    """Promise: a content type that a browser sends across sites without asking is refused before anything is spent."""
    body, plain = json.dumps(request()), {"content-type": "text/plain"}
    assert client.post("/v1/chat/completions", content=body, headers=plain).status_code == 415
    assert service.seen == []


def test_label_without_a_reply_is_its_own_reply(client_of: Callable[..., TestClient], upstream: FakeUpstream) -> None:
    template = TEMPLATE.model_copy(update={"replies": {"bad": "BAD."}})
    answer = client_of(proxy=proxy_of(upstream, template=template)).post("/v1/chat/completions", json=request())
    assert answer.json()["choices"][0]["message"]["content"] == "good"


@pytest.mark.parametrize(
    "changes",
    [
        {"n": 1, "tools": [], "logprobs": False, "store": False, "stop": None},
        {"seed": 1, "max_tokens": 5, "user": "ann", "response_format": {"type": "text"}},
    ],
    ids=["values that ask for nothing", "fields without effect"],
)
def test_fields_that_a_label_answers(client: TestClient, upstream: FakeUpstream, changes: dict[str, Any]) -> None:
    answer = client.post("/v1/chat/completions", json=request() | changes)
    assert (answer.status_code, answer.headers["x-kcm-route"], upstream.paths) == (200, "small", [])


TOOL = {"type": "function", "function": {"name": "look", "parameters": {}}}
WITH_NAME = {"role": "user", "name": "ann", "content": "Review: a film Verdict:"}


@pytest.mark.parametrize(
    "changes",
    [
        {"tools": [TOOL]},
        {"tools": [TOOL], "tool_choice": "none"},
        {"n": 2},
        {"logprobs": True},
        {"stop": ["."]},
        {"modalities": ["text", "audio"]},
        {"a_field_of_next_year": 1},
        {"response_format": {"type": "json_object"}},
        {"response_format": answer_schema(["good", "bad"])},
        {"messages": [{"role": "system", "content": f"{SYSTEM} "}, request()["messages"][1]]},
        {"messages": [request()["messages"][1]]},
        {"messages": [request()["messages"][0], WITH_NAME]},
        {"messages": request("a text that is too long")["messages"]},
        {"messages": request(" ")["messages"]},
        {"messages": "none"},
    ],
    ids=str,
)
def test_everything_else_passes_through(
    client: TestClient, service: Any, upstream: FakeUpstream, changes: dict[str, Any]
) -> None:
    """Body and reply are byte for byte those of a call without kcm."""
    body = json.dumps(request() | changes, indent=3).encode()
    upstream.plan(Turn(body=b'{ "choices":  [] }', headers={"Content-Type": "application/json"}))
    answer = client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.headers["x-kcm-route"]) == (200, "upstream")
    assert answer.content == b'{ "choices":  [] }'
    assert upstream.requests == [json.loads(body)]
    assert upstream.headers[0]["content-length"] == str(len(body))
    assert service.seen == []
    assert service.metrics.passed == [200]


@pytest.mark.parametrize(
    "asked",
    [{"type": "json_object"}, answer_schema(["good", "bad"])],
    ids=["any object", "a schema"],
)
def test_replies_in_the_format_that_is_asked_for(
    client_of: Callable[..., TestClient], upstream: FakeUpstream, asked: dict[str, Any]
) -> None:
    template = TEMPLATE.model_copy(update={"replies": {"good": '{"label":  "good"}', "bad": '{"label": "bad"}'}})
    client = client_of(proxy=proxy_of(upstream, template=template))
    answer = client.post("/v1/chat/completions", json=request(response_format=asked))
    assert answer.json()["choices"][0]["message"]["content"] == '{"label":  "good"}'
    other = answer_schema(["good", "awful"])
    assert client.post("/v1/chat/completions", json=request(response_format=other)).headers["x-kcm-route"] == "upstream"


def test_other_paths_of_a_client_pass_through(chat: openai.OpenAI, upstream: FakeUpstream) -> None:
    upstream.plan(
        Turn(body='{"object": "list", "data": [{"id": "gpt"}]}', headers={"Content-Type": "application/json"})
    )
    assert [model.id for model in chat.models.list()] == ["gpt"]
    chat.models.retrieve("org/gpt:7b@x")
    chat.embeddings.create(model="e", input="x", encoding_format="float")
    chat.completions.create(model="c", prompt="x")
    chat.responses.create(model="r", input="x")
    names = ["models", "models/org/gpt:7b@x", "embeddings", "completions", "responses"]
    assert upstream.paths == [f"/v1/{name}" for name in names]


def test_stream_passes_through_byte_for_byte(client: TestClient, upstream: FakeUpstream) -> None:
    events = 'data: {"choices": [{"delta": {"content": "é"}}]}\r\n\r\n: comment\n\ndata: [DONE]\n\n'.encode()
    upstream.plan(Turn(body=events, headers={"Content-Type": "text/event-stream; charset=utf-8"}, drip_s=0.001))
    answer = client.post("/v1/chat/completions", json=request(n=2, stream=True))
    assert answer.content == events
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422, 429, 500, 503])
def test_errors_of_the_upstream_pass_through(chat: openai.OpenAI, upstream: FakeUpstream, status: int) -> None:
    error = {"message": f"as {OPERATORS_KEY} says", "type": "its_own", "param": None, "code": "its_code"}
    headers = {
        "Content-Type": "application/json",
        "Retry-After": "7",
        "X-Request-Id": "theirs",
        "X-RateLimit-Limit": "9",
    }
    upstream.plan(Turn(status, json.dumps({"error": error}), headers))
    with pytest.raises(openai.APIStatusError) as caught:
        chat.chat.completions.create(**request(n=2))
    assert caught.value.status_code == status
    assert caught.value.body == error | {"message": "as *** says"}
    returned = caught.value.response.headers
    assert (returned["retry-after"], returned["x-ratelimit-limit"]) == ("7", "9")
    assert returned["x-kcm-upstream-request-id"] == "theirs"


def test_callers_identity_stays_here_and_the_operators_key_goes(
    client: TestClient, upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither key is logged, and no cookie, organization or forwarded address travels either way."""
    theirs = {"Content-Type": "application/json", "Set-Cookie": "a=b", "OpenAI-Organization": "acme"}
    upstream.otherwise = lambda _: Turn(body="{}", headers=theirs)
    private = {
        "Authorization": f"Bearer {KEY}",
        "Cookie": "session=1",
        "OpenAI-Organization": "org",
        "X-Forwarded-For": "10.0.0.1",
        "Connection": "keep-alive, X-Hop",
        "X-Hop": "1",
        "Proxy-Authorization": "Basic eA==",
    }
    public = {"Accept": "application/json", "Idempotency-Key": "7", "OpenAI-Beta": "assistants=v2"}
    with caplog.at_level(0):
        for _ in range(2):
            answer = client.post("/v1/embeddings", json={"model": "e", "input": "x"}, headers=private | public)
    for sent in upstream.headers:
        assert sent.pop("authorization") == f"Bearer {OPERATORS_KEY}"
        assert sent["host"] == httpx.URL(upstream.base_url).netloc.decode()
        assert sent.keys() == {
            *("accept", "accept-encoding", "connection", "content-length", "content-type", "host", "user-agent"),
            *("idempotency-key", "openai-beta"),
        }
    assert answer.headers.keys() == {"content-type", "content-length", "x-kcm-route"}
    assert KEY not in caplog.text + repr([record.__dict__ for record in caplog.records])
    assert OPERATORS_KEY not in caplog.text + repr([record.__dict__ for record in caplog.records])


def test_callers_need_their_own_key(client_of: Callable[..., TestClient], upstream: FakeUpstream) -> None:
    class Known:
        def caller(self, key: str) -> str | None:
            return "ann" if key == KEY else None

    client = client_of(proxy=proxy_of(upstream), keys=Known())
    for path in ("/v1/chat/completions", "/v1/embeddings"):
        stranger = client.post(path, json=request(n=2), headers={"Authorization": f"Bearer {OPERATORS_KEY}"})
        assert (stranger.status_code, upstream.paths) == (401, [])
    assert client.post("/v1/embeddings", json={}, headers={"Authorization": f"Bearer {KEY}"}).status_code == 200


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_a_web_page_of_another_site_spends_nothing(client: TestClient, upstream: FakeUpstream, media_type: str) -> None:
    """Browsers send only these types across sites without asking first."""
    answer = client.post("/v1/embeddings", content=b'{"model": "e"}', headers={"content-type": media_type})
    assert (answer.status_code, upstream.paths) == (415, [])


def test_money_is_spent_for_known_callers_alone(upstream: FakeUpstream) -> None:
    with pytest.raises(ValidationError, match=r"proxy spends your money: without auth.keys_file host must be 127"):
        ServeConfig(proxy=proxy_of(upstream), host="0.0.0.0")
    keys = AuthConfig(keys_file="/keys")
    assert ServeConfig(proxy=proxy_of(upstream), host="0.0.0.0", auth=keys).proxy


def test_one_server_has_one_budget(upstream: FakeUpstream) -> None:
    """The large model may ask the proxy's server with the same key and budget, and with no others."""
    config = ServeConfig(proxy=proxy_of(upstream, max_calls=3))
    asked = config.with_proxy_server.large.upstreams
    assert [(each.base_url, each.max_calls, each.api_key_env) for each in asked] == [
        (upstream.base_url, 3, "UPSTREAM_KEY")
    ]
    again = ServeConfig.model_validate(config.with_proxy_server.model_dump(mode="json"))
    assert again.with_proxy_server == again
    other = LargeReplicaConfig(upstreams=({"base_url": upstream.base_url},))
    with pytest.raises(ValidationError, match="proxy has its key and budget"):
        ServeConfig(proxy=proxy_of(upstream), large=other)
