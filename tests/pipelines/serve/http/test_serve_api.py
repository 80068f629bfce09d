"""The interface over HTTP: what comes back, what is refused in one line, and that no request breaks it."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import re
import tracemalloc
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from kcm.bundle.answers import Input
from kcm.inputs.content import Content
from pipelines.serve.config import LimitsConfig, ServeConfig
from pipelines.serve.http.api import create_api
from pipelines.serve.log.entries import Feedback
from tests.pipelines.serve.stubs import request_to, sending, statuses_of

ITEM = {"text": "a"}


def test_items_arrive_as_sent_and_answers_return(client: TestClient, service: Any) -> None:
    """Promise: items reach the service as they were sent and answers come back."""
    response = client.post("/v1/predict", json={"inputs": [{"text": " a "}, {"text": "b", "task": "movies"}]})
    assert service.seen == [Input(Content(" a ")), Input(Content("b"), "movies")]
    assert response.status_code == 200
    body = response.json()
    assert (body["model_version"], len(body["answers"])) == ("3", 2)
    assert body["timings"] == {"judge_s": 0.01, "large_s": 0.0, "total_s": 0.02}
    assert body["answers"][0] == {
        "label": "good",
        "probabilities": {"good": 0.9, "bad": 0.1},
        "gate_score": 2.2,
        "threshold": None,
        "route": "small",
        "degraded": False,
        "cost_s": 0.01,
        "large_cost_s": 0.0,
        "judge_confidence": 0.9,
        "answer_probability": 0.9,
    }


def test_every_request_gets_its_own_id_next_to_the_sent_one(client: TestClient, service: Any) -> None:
    """Promise: two requests never share an id, whatever their clients call them."""
    headers = {"X-Request-ID": "mine"}
    given = [client.post("/v1/predict", json={"inputs": [ITEM]}, headers=headers).json()["request_id"] for _ in "ab"]
    without = client.post("/v1/predict", json={"inputs": [ITEM]}).json()["request_id"]
    assert len({*given, without, "mine", ""}) == 5
    assert [origin.request_id for origin in service.origins] == [*given, without]
    assert [origin.client_request_id for origin in service.origins] == ["mine", "mine", None]


@pytest.mark.parametrize("request_id", ["two words", "x" * 129, "café"])
def test_an_id_that_could_not_be_logged_or_stored_is_refused(client: TestClient, request_id: str) -> None:
    headers = {"X-Request-ID": request_id.encode()}
    response = client.post("/v1/predict", json={"inputs": [ITEM]}, headers=headers)
    assert response.status_code == 422
    assert "1 to 128 printable" in response.json()["detail"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"inputs": [ITEM, {"text": " \n"}]}, "inputs[1].text: The text is empty"),
        ({"inputs": [ITEM, {"text": "my private text"}]}, "inputs[1].text: String should have at most 10 characters"),
        ({"inputs": [ITEM] * 4}, "inputs: List should have at most 3 items"),
        ({"inputs": []}, "inputs: List should have at least 1 item"),
        ({"inputs": [ITEM, {}]}, "inputs[1]: There is nothing to classify: give a text, an image or features"),
        ({"inputs": [{"image": "no base64"}]}, "inputs[0].image: An image must be in base64"),
        ({"inputs": [{"image": "A" * 200}]}, "inputs[0].image: Image should have at most 100 bytes"),
        ({"inputs": [{"features": [1.0, 1e300]}]}, "inputs[0].features: the vector holds a number that is not finite"),
        ({"inputs": [{"text": "x", "label": 1}]}, "inputs[0].label: Extra inputs are not permitted"),
    ],
    ids=str,
)
def test_invalid_request_error_names_item_and_limit(client: TestClient, body: Any, message: str) -> None:
    """Promise: the error on an invalid request names item and limit in one line, and does not repeat the input."""
    response = client.post("/v1/predict", json=body)
    assert response.status_code == 422
    assert message in response.json()["detail"]
    assert "\n" not in response.json()["detail"]
    assert "private" not in response.text


def test_too_long_body_is_refused_with_or_without_length(client: TestClient, service: Any) -> None:
    """Promise: a body that is too long is refused whether it says so or not."""

    def endless() -> Iterator[bytes]:
        for _ in range(10):
            yield b" " * 50

    for content in (b" " * 401, endless()):
        response = client.post("/v1/predict", content=content)
        assert (response.status_code, response.json()["detail"]) == (413, "body: at most 400 bytes are allowed")
    fitting = b'{"inputs": [{"text": "a"}]}'.ljust(400)
    headers = {"content-type": "application/json"}
    assert client.post("/v1/predict", content=fitting, headers=headers).status_code == 200
    assert len(service.seen) == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/predict", {"inputs": [ITEM]}),
        ("/v1/chat/completions", {"model": "kcm", "messages": [{"role": "user", "content": "a"}]}),
    ],
    ids=["predict", "chat"],
)
def test_unexpected_error_is_counted_and_hides_the_input(
    client: TestClient, service: Any, caplog: pytest.LogCaptureFixture, path: str, body: Any
) -> None:
    """Promise: an error that nobody foresaw is counted logged without the input and answered as any other."""
    service.error = KeyError("my private text")
    with caplog.at_level("INFO", logger="ray.serve"):
        response = client.post(path, json=body, headers={"X-Request-Id": "mine"})
    reason = "this should not have happened; it has been logged"
    assert response.status_code == 500
    assert response.json() == {"detail": reason, "error": {"message": reason, "code": 500}}
    assert service.metrics.num_failed == 1
    trace, line = caplog.records
    assert f"request {vars(line)['request_id']}: KeyError" in trace.getMessage()
    assert "in predict" in trace.getMessage()
    assert (vars(line)["status"], vars(line)["error"]) == (500, "KeyError")
    assert "private" not in caplog.text


def test_an_explanation_is_of_one_item(client: TestClient, service: Any) -> None:
    response = client.post("/v1/explain", json={"input": {"text": "a b", "task": "movies"}, "top": 3})
    assert service.seen == [Input(Content("a b"), "movies"), 3]
    assert response.status_code == 200
    assert response.json()["words"] == [["a", 0.1]]
    assert response.json()["messages"] == [{"role": "user", "content": "a b"}]


def test_feedback_names_the_request_and_its_items(client: TestClient, service: Any) -> None:
    labels = [{"item": 1, "label": "good", "text": "x", "task": "movies"}, {"label": "bad"}]
    response = client.post("/v1/feedback", json={"request_id": "mine", "labels": labels})
    assert (response.status_code, response.json()) == (200, {"request_id": "mine", "stored": 2})
    assert service.seen == ["mine", None, Feedback(1, "good", "x", "movies"), Feedback(0, "bad")]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"request_id": "mine", "labels": [{"label": "a"}, {"label": "b"}]}, "labels: Each item can have one label"),
        ({"request_id": "mine", "labels": [{"item": 3, "label": "a"}]}, "labels[0].item: Input should be less than 3"),
        ({"request_id": "two words", "labels": [{"label": "a"}]}, "request_id: String should match"),
    ],
    ids=str,
)
def test_feedback_that_makes_no_sense_is_refused_with_a_reason(client: TestClient, body: Any, message: str) -> None:
    response = client.post("/v1/feedback", json=body)
    assert response.status_code == 422
    assert message in response.json()["detail"]


def test_it_is_alive_before_it_is_ready(client: TestClient, service: Any) -> None:
    service.waiting = "the large model has not answered yet"
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 503
    assert "the large model has not answered yet" in client.get("/readyz").json()["detail"]
    service.waiting = None
    assert client.get("/readyz").status_code == 200


def test_the_documentation_and_all_that_it_loads_come_from_here(client: TestClient) -> None:
    loaded = re.findall(r'(?:href|src)="([^"]+)"', client.get("/docs").text)
    assert len(loaded) == 3
    assert [client.get(path).status_code for path in loaded if path.startswith("/")] == [200] * 3


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "text/json", ""])
def test_cross_origin_simple_requests_are_refused(client: TestClient, service: Any, kind: str) -> None:
    """Promise: what a page of another origin may send unasked is refused."""
    headers = {"content-type": kind} if kind else {}
    response = client.post("/v1/predict", content=b'{"inputs": [{"text": "a"}]}', headers=headers)
    assert (response.status_code, service.seen) == (422, [])
    assert "body: Input should be a JSON object, sent as Content-Type: app" in response.json()["detail"]


VALID: dict[str, Any] = {
    "/v1/predict": {"inputs": [{"text": "What a film!", "task": "movies"}, {"text": "It has its moments."}]},
    "/v1/explain": {"input": {"text": "What a film!", "task": "movies"}, "top": 3},
    "/v1/feedback": {"request_id": "mine", "labels": [{"item": 0, "label": "good", "text": "x", "task": "movies"}]},
    "/v1/chat/completions": {"model": "kcm", "messages": [{"role": "user", "content": "<<<\na\n>>>"}], "n": 1},
}


@pytest.fixture
def api(service: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    monkeypatch.setattr("pipelines.serve.config.MAX_JSON_VALUES", 1000)
    caplog.set_level(logging.ERROR, logger="ray.serve")
    service.seen, service.origins = Forgetful(), Forgetful()
    limits = LimitsConfig(max_items=3, max_text_length=100, max_body_bytes=8000)
    return create_api(service, ServeConfig(limits=limits, allowed_hosts=("*",)))


class Forgetful(list[Any]):
    """A list that keeps nothing: what a stub remembers is no leak of the interface."""

    def __iadd__(self, other: Iterable[Any]) -> Forgetful:  # type: ignore[override, misc]
        return self


async def status_of(api: FastAPI, path: str, body: bytes) -> int:
    """The status of the answer, without a client in between."""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    (status,) = await statuses_of(api, request_to(path, headers=headers), sending(body))
    return status


@pytest.mark.slow
async def test_memory_does_not_grow_with_the_number_of_requests(api: FastAPI) -> None:
    """Promise: an answered request leaves nothing behind; later hundreds need no more memory than the first."""
    body = json.dumps(VALID["/v1/predict"]).encode()

    async def ask(number: int) -> int:
        for _ in range(number):
            assert await status_of(api, "/v1/predict", body) == 200
        await asyncio.sleep(0)  # the event loop forgets timers that have been cancelled
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    async def grown() -> int:
        await ask(100)
        tracemalloc.start()
        try:
            before = await ask(50)
            return await ask(300) - before
        finally:
            tracemalloc.stop()

    assert await grown() < 300 * 20  # bytes: a fiftieth of what keeping each response would take


@pytest.mark.parametrize("opening", ["[", '{"a":', '{"inputs":[', '{"messages":[{"content":['])
async def test_json_however_deep_is_the_client_s_fault_at_every_interface(
    api: FastAPI, service: Any, opening: str
) -> None:
    depths = (100, 150, 201, 700, 8000 // len(opening))
    bodies = [opening * depth + closing for depth in depths for closing in ("", "]" * depth, "}" * depth)]
    assert ({await status_of(api, path, body.encode()) for path in VALID for body in bodies}) <= {413, 422}
    assert service.metrics.num_failed == 0


CHECKS: list[Any] = [
    not_a_server_error,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
]
PATHS = list(VALID)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: str(mode.value))
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.slow
def test_no_request_breaks_the_service(
    client: TestClient, caplog: pytest.LogCaptureFixture, path: str, mode: GenerationMode
) -> None:
    """Promise: no request that the documentation allows or forbids is answered by a 500."""
    caplog.set_level(logging.ERROR, logger="ray.serve")
    document = schemathesis.openapi.from_asgi("/openapi.json", client.app)
    statuses = set()

    @settings(max_examples=70, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=document[path]["POST"].as_strategy(generation_mode=mode))
    def every_request_is_answered_as_documented(case: schemathesis.Case) -> None:
        response = case.call()
        statuses.add(response.status_code)
        case.validate_response(response, checks=CHECKS)

    every_request_is_answered_as_documented()
    assert statuses <= {200, 400, 404, 413, 422}
    assert len(statuses) > 1 or mode is GenerationMode.POSITIVE


@settings(max_examples=150, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(content=st.binary(max_size=500), path=st.sampled_from(PATHS), kind=st.sampled_from(["json", "x-none"]))
def test_bytes_of_any_kind_are_the_client_s_fault(client: TestClient, content: bytes, path: str, kind: str) -> None:
    response = client.post(path, content=content, headers={"content-type": f"application/{kind}"})
    assert response.status_code in (400, 413, 422)
    assert "\n" not in response.json()["detail"]
