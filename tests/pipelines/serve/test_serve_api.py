from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi.testclient import TestClient

from kcm.cascade.policy import KEEP_ALL, Policy
from kcm.cascade.runtime import Answer, Input
from pipelines.serve.api import ModelCard, PredictResponse, Refusal, create_api
from pipelines.serve.config import LimitsConfig

LIMITS = LimitsConfig(max_items=3, max_text_length=10)


@dataclass
class StubService:
    """Answers everything with the same answer, or with a refusal."""

    refusal: Refusal | None = None
    waiting: str | None = None
    seen: list[Input] = field(default_factory=list)

    async def predict(self, inputs: Sequence[Input], request_id: str) -> PredictResponse:
        if self.refusal:
            raise self.refusal
        self.seen += inputs
        answer = Answer("good", {"good": 0.9, "bad": 0.1}, 0.9, 2.2, None, "small", False, 0.01)
        return PredictResponse(model_version="3", request_id=request_id, answers=[answer] * len(inputs))

    def card(self) -> ModelCard:
        return ModelCard(
            model_version="3",
            digest="abc",
            labels=["bad", "good"],
            tasks=["movies"],
            encoder="some/encoder",
            large="classifier",
            policy=Policy(decision=KEEP_ALL),
            certificate=None,
            task_certificates={},
            lineage={},
        )

    def waiting_for(self) -> str | None:
        return self.waiting


def client(service: StubService | None = None) -> TestClient:
    return TestClient(create_api(service or StubService(), LIMITS, ["movies", "tweets"]))


def test_items_reach_the_service_as_they_were_sent_and_answers_come_back() -> None:
    service = StubService()
    response = client(service).post("/v1/predict", json={"inputs": [{"text": " a "}, {"text": "b", "task": "movies"}]})
    assert service.seen == [Input(" a "), Input("b", "movies")]
    assert response.status_code == 200
    body = response.json()
    assert (body["model_version"], len(body["answers"])) == ("3", 2)
    assert body["answers"][0] == {
        "label": "good",
        "probabilities": {"good": 0.9, "bad": 0.1},
        "confidence": 0.9,
        "gate_score": 2.2,
        "threshold": None,
        "route": "small",
        "degraded": False,
        "cost_s": 0.01,
    }


def test_a_request_keeps_the_id_it_came_with_and_gets_one_otherwise() -> None:
    body = {"inputs": [{"text": "a"}]}
    with_id = client().post("/v1/predict", json=body, headers={"X-Request-ID": "mine"}).json()
    without = [client().post("/v1/predict", json=body).json()["request_id"] for _ in range(2)]
    assert with_id["request_id"] == "mine"
    assert len({*without, ""}) == 3


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"inputs": [{"text": ""}]}, "The text is empty"),
        ({"inputs": [{"text": " \n"}]}, "The text is empty"),
        ({"inputs": [{"text": "x" * 11}]}, "at most 10 characters"),
        ({"inputs": [{"text": "x"}] * 4}, "at most 3 items"),
        ({"inputs": []}, "at least 1 item"),
        ({"inputs": [{"text": 5}]}, "valid string"),
        ({"inputs": [{"text": "x", "task": "movie"}]}, "no such task, did you mean 'movies'?"),
        ({"inputs": [{"text": "x", "label": 1}]}, "Extra inputs are not permitted"),
        ({"texts": ["x"]}, "Field required"),
        ({}, "Field required"),
    ],
    ids=str,
)
def test_an_invalid_request_is_told_why(body: Any, message: str) -> None:
    response = client().post("/v1/predict", json=body)
    assert response.status_code == 422
    assert message in " ".join(problem["msg"] for problem in response.json()["detail"])


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b'{"inputs": NaN}', b'{"inputs": [{"text": "\\ud800"}]}', b'{"inputs": [{"text": 1e999}]}'],
    ids=str,
)
def test_a_malformed_body_is_the_client_s_fault(content: bytes) -> None:
    response = client().post("/v1/predict", content=content, headers={"content-type": "application/json"})
    assert response.status_code == 422
    assert response.json()["detail"]


def test_an_error_does_not_repeat_the_input() -> None:
    response = client().post("/v1/predict", json={"inputs": [{"text": "my private text"}]})
    assert "private" not in response.text


@pytest.mark.parametrize(("retry_after_s", "header"), [(2, "2"), (None, None)])
def test_a_refusal_has_its_status_reason_and_time_to_come_back(retry_after_s: int | None, header: str | None) -> None:
    service = StubService(refusal=Refusal(503, "too much to do", retry_after_s))
    response = client(service).post("/v1/predict", json={"inputs": [{"text": "a"}]})
    assert (response.status_code, response.json()) == (503, {"detail": "too much to do"})
    assert response.headers.get("retry-after") == header


def test_it_is_alive_before_it_is_ready() -> None:
    waiting = client(StubService(waiting="the large model has not answered yet"))
    assert waiting.get("/healthz").status_code == 200
    assert waiting.get("/readyz").status_code == 503
    assert "the large model has not answered yet" in waiting.get("/readyz").json()["detail"]
    assert client().get("/readyz").status_code == 200


def test_the_card_shows_what_is_served() -> None:
    card = client().get("/v1/model").json()
    assert card["policy"]["decision"] == {"decision": "keep_all", "threshold": None}
    assert (card["model_version"], card["labels"]) == ("3", ["bad", "good"])


def test_the_documentation_states_the_limits() -> None:
    assert client().get("/docs").status_code == 200
    schemas = client().get("/openapi.json").json()["components"]["schemas"]
    assert schemas["PredictRequest"]["properties"]["inputs"]["maxItems"] == 3
    assert schemas["Item"]["properties"]["text"]["maxLength"] == 10
    assert set(schemas["Answer"]["required"]) >= {"label", "route", "gate_score", "threshold", "degraded"}
