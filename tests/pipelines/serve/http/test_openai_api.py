"""The OpenAI-compatible interface, asked by OpenAI's own client."""

import json
import math
import re
from collections.abc import Callable
from typing import Any

import openai
import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from kcm.bundle.answers import Input
from kcm.inputs.content import Content
from kcm.large.prompts import answer_schema, question
from pipelines.serve.http.openai_api import text_between_marks


@pytest.fixture
def chat(client: TestClient) -> openai.OpenAI:
    return openai.OpenAI(base_url="http://testserver/v1", api_key="any", http_client=client, max_retries=0)


def ask(chat: openai.OpenAI, *messages: tuple[str, Any], model: str = "kcm", **options: Any) -> Any:
    said = [{"role": role, "content": content} for role, content in messages]
    return chat.chat.completions.with_raw_response.create(model=model, messages=said, **options)  # type: ignore[call-overload]


def test_the_model_is_listed(chat: openai.OpenAI) -> None:
    assert [model.id for model in chat.models.list()] == ["kcm"]
    assert chat.models.retrieve("kcm").id == "kcm"
    with pytest.raises(openai.NotFoundError):
        chat.models.retrieve("gpt")


def test_last_user_message_is_classified_with_a_route_header(chat: openai.OpenAI, service: Any) -> None:
    """Promise: the user's last message is classified and the route stands in a header."""
    messages = [("user", "first"), ("assistant", "bad"), ("user", "a film")]
    raw = ask(chat, *messages, temperature=0, max_tokens=5, extra_headers={"X-Request-Id": "mine"})
    completion = raw.parse()
    assert service.seen == [Input(Content("a film"))]
    (choice,) = completion.choices
    assert (choice.message.content, choice.message.role, choice.finish_reason) == ("good", "assistant", "stop")
    assert (completion.id, completion.system_fingerprint) == (f"chatcmpl-{service.origins[0].request_id}", "3")
    assert (raw.headers["x-kcm-route"], raw.headers["x-kcm-version"]) == ("small", "3")


OWN = question("a film", ["bad", "good"])  # as our own large models are asked
MARKED = "Good or bad? The text stands between <<< and >>>.\n<<<\na film\n>>>\nLabel:"
PARTS = [{"type": "text", "text": "a "}, {"type": "text", "text": "film"}]


@pytest.mark.parametrize(
    "messages",
    [[("user", MARKED)], [("user", PARTS)], [("system", OWN.instructions), ("user", OWN.data)]],
    ids=["between marks", "in parts", "our own question"],
)
def test_forms_in_which_a_text_may_stand(chat: openai.OpenAI, service: Any, messages: list[tuple[str, Any]]) -> None:
    ask(chat, *messages)
    assert service.seen == [Input(Content("a film"))]


@settings(max_examples=200, derandomize=True, database=None)
@given(said=st.lists(st.sampled_from(["<<<", ">>>", "\n", "<", ">", " ", "a"]), max_size=14).map("".join))
def test_marks_are_those_that_a_greedy_search_finds(said: str) -> None:
    found = re.search(r"<<<\n(.*)\n>>>", said, re.DOTALL)
    assert text_between_marks(said) == (found[1].strip() if found else said)


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("x" * 1_000_001, "content.constrained-str: String should have at most 1000000 characters"),
        ([{"type": "text", "text": "x"}] * 101, "should have at most 100 items"),
        ([{}] * 101, "content.list[TextPart][0].type: Field required"),
    ],
    ids=["one text", "many parts", "many parts that are none"],
)
def test_a_message_has_limits_and_one_bad_part_is_told(
    client_of: Callable[..., TestClient], content: Any, place: str
) -> None:
    body = {"model": "kcm", "messages": [{"role": "user", "content": content}]}
    response = client_of().post("/v1/chat/completions", json=body)
    assert response.status_code == 422
    assert place in response.json()["detail"]
    assert "more" not in response.json()["detail"]


@pytest.mark.parametrize(
    ("version", "header"),
    [("films/3", "films/3"), ("кино/3", "%D0%BA%D0%B8%D0%BD%D0%BE/3"), ("a\r\nb: 5%", "a%0D%0Ab:%205%25")],
)
def test_a_version_may_be_named_in_any_script(chat: openai.OpenAI, service: Any, version: str, header: str) -> None:
    service.version = version
    raw = ask(chat, ("user", "a film"))
    assert (raw.headers["x-kcm-version"], raw.parse().system_fingerprint) == (header, version)


def test_probabilities_come_as_those_of_tokens(chat: openai.OpenAI) -> None:
    (choice,) = ask(chat, ("user", "a film"), logprobs=True, top_logprobs=2).parse().choices
    (token,) = choice.logprobs.content
    assert (token.token, math.exp(token.logprob)) == ("good", pytest.approx(0.9))
    assert {top.token: round(math.exp(top.logprob), 6) for top in token.top_logprobs} == {"good": 0.9, "bad": 0.1}


def schema(**properties: Any) -> dict[str, Any]:
    described = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": described}}


@pytest.mark.parametrize(
    ("asked", "content"),
    [
        ({"type": "text"}, "good"),
        ({"type": "json_object"}, '{"label": "good"}'),
        (schema(verdict={"type": "string"}), '{"verdict": "good"}'),
        (schema(verdict={"type": "string", "enum": ["bad", "good"]}), '{"verdict": "good"}'),
        (answer_schema(["bad", "good"]), '{"label": "good"}'),
    ],
)
def test_the_label_comes_in_the_form_that_is_asked_for(chat: openai.OpenAI, asked: Any, content: str) -> None:
    (choice,) = ask(chat, ("user", "a film"), response_format=asked).parse().choices
    assert (choice.message.content, choice.message.refusal) == (content, None)


def test_half_a_surrogate_pair_is_refused(client: TestClient, service: Any) -> None:
    """Promise: a name that no reply can hold is a refusal and rings no alarm."""
    body = {"model": "kcm", "messages": [{"role": "user", "content": "x"}]}
    asked = schema(**{"\ud800": {"type": "string"}})
    headers = {"content-type": "application/json"}
    answer = client.post("/v1/chat/completions", content=json.dumps(body | {"response_format": asked}), headers=headers)
    assert (answer.status_code, service.metrics.num_failed) == (422, 0)
    assert "no Unicode text" in answer.json()["detail"]


def test_a_label_that_the_schema_does_not_allow_is_a_refusal(chat: openai.OpenAI) -> None:
    asked = schema(verdict={"enum": ["bad", "unclear"]})
    (choice,) = ask(chat, ("user", "a film"), response_format=asked).parse().choices
    assert choice.message.content is None
    assert choice.message.refusal == "the answer is 'good', which the schema does not allow"


def test_usage_and_what_has_no_other_place_are_told(chat: openai.OpenAI, service: Any) -> None:
    raw = ask(chat, ("system", "not counted"), ("user", "<<<\na film\n>>>"))
    usage = raw.parse().usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (2, 1, 3)
    headers = {name: value for name, value in raw.headers.items() if name.startswith("x-kcm-")}
    assert headers.keys() >= {
        "x-kcm-route",
        "x-kcm-version",
        "x-kcm-judge-confidence",
        "x-kcm-gate-score",
        "x-kcm-degraded",
    }
    assert headers["x-kcm-request-id"] == service.origins[0].request_id
    assert headers["x-kcm-degraded"] == "false"


def test_stream_has_the_same_label_and_optional_usage(chat: openai.OpenAI) -> None:
    """Promise: a stream carries the same label and its usage where asked."""
    said = {"model": "kcm", "messages": [{"role": "user", "content": "a film"}], "stream": True}
    chunks = list(chat.chat.completions.create(**said, stream_options={"include_usage": True}))  # type: ignore[call-overload]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "good"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == 3
    assert all(chunk.usage is None for chunk in chunks[:-1])


@pytest.mark.parametrize(
    ("messages", "options", "kind", "reason"),
    [
        ([("user", "a film")], {"model": "gpt"}, openai.NotFoundError, "the only model here is 'kcm'"),
        ([("system", "a film")], {}, openai.UnprocessableEntityError, "none of the role 'user'"),
        ([("system", "In French."), ("user", "x")], {}, openai.UnprocessableEntityError, "takes no instructions"),
        ([("developer", "In French."), ("user", "x")], {}, openai.UnprocessableEntityError, "<<<"),
        ([("user", "x" * 11)], {}, openai.UnprocessableEntityError, "at most 10 characters"),
        ([("user", "x")], {"n": 2}, openai.UnprocessableEntityError, "n: Input should be 1"),
        (
            [("user", "x")],
            {"response_format": schema(a={"type": "number"})},
            openai.UnprocessableEntityError,
            "response_format.json_schema.schema: the property must be a string",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_classified_is_refused_with_a_reason(
    chat: openai.OpenAI, messages: Any, options: Any, kind: type[Exception], reason: str
) -> None:
    with pytest.raises(kind) as caught:
        ask(chat, *messages, **options)
    assert reason in str(caught.value)
