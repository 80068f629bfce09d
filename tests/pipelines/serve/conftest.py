"""A service without models behind the real interface."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from markupsafe import Markup

from kcm.bundle.answers import Answer, Input
from kcm.cascade.policy import KEEP_ALL, Policy
from kcm.large.prompts import PromptMessage
from pipelines.serve.cascade.version import NO_CURVES
from pipelines.serve.config import FeedbackConfig, LimitsConfig, ServeConfig
from pipelines.serve.errors import RequestError
from pipelines.serve.http.api import create_api
from pipelines.serve.log.entries import Feedback, Origin
from pipelines.serve.schemas import (
    ExplainResponse,
    FeedbackResponse,
    ModelCard,
    PredictResponse,
    ReplicaTraffic,
    Timings,
)
from tests.pipelines.serve.stubs import StubMetrics

HOSTS = ("testserver",)  # what test clients call every interface


class StubCards:
    def report(self) -> Markup:
        return Markup("<p>%s</p>") % "what <it> promises"

    def card(self) -> ModelCard:
        return ModelCard(
            model_version="3",
            digest="abc",
            labels=["bad", "good"],
            tasks=["movies"],
            reads=["text"],
            encoder="some/encoder",
            large="classifier",
            policy=Policy(decision=KEEP_ALL),
            certificate=None,
            task_certificates={},
            lineage={"parent": "2"},
            traffic=ReplicaTraffic(small=3, large=1),
            call_rate=0.25,
            cost_saved=0.5,
            breaker="closed",
            loading=None,
            refused=None,
        )


@dataclass
class StubService:
    """Answers everything with the same answer, or with a refusal, and remembers what it was given."""

    refusal: RequestError | None = None
    waiting: str | None = None
    seen: list[Any] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)
    version: str = "3"
    error: Exception | None = None
    cards: StubCards = field(default_factory=StubCards)
    metrics: StubMetrics = field(default_factory=StubMetrics)

    async def predict(self, inputs: Sequence[Input], origin: Origin) -> PredictResponse:
        if problem := self.refusal or self.error:
            raise problem
        self.seen += inputs
        self.origins += [origin]
        answer = Answer("good", {"good": 0.9, "bad": 0.1}, 0.9, 2.2, None, "small", False, 0.01, 0.0, 0.9)
        return PredictResponse(
            model_version=self.version,
            request_id=origin.request_id,
            answers=[answer] * len(inputs),
            timings=Timings(judge_s=0.01, total_s=0.02),
        )

    async def explain(self, given: Input, top: int, request_id: str) -> ExplainResponse:
        if self.refusal:
            raise self.refusal
        self.seen += [given, top]
        return ExplainResponse(
            model_version="3",
            request_id=request_id,
            label="good",
            judge_label="good",
            judge_confidence=0.9,
            answer_probability=0.9,
            escalated=False,
            words=(("a", 0.1),),
            cells=None,
            reasons={},
            no_curves=NO_CURVES,
            gate=None,
            messages=[PromptMessage("user", given.content.text)],
        )

    async def feedback(self, request_id: str, caller: str | None, labels: Sequence[Feedback]) -> FeedbackResponse:
        if self.refusal:
            raise self.refusal
        self.seen += [request_id, caller, *labels]
        return FeedbackResponse(request_id=request_id, stored=len(labels))

    def waiting_for(self) -> str | None:
        return self.waiting

    def degraded(self) -> str | None:
        return None


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The URL of a log in which nothing is yet."""
    return f"sqlite:///{tmp_path}/log.db"


@pytest.fixture
def feedback(url: str) -> FeedbackConfig:
    """Where decisions and paid answers are written."""
    return FeedbackConfig(url=url, timeout_s=0.5)


@pytest.fixture
def service() -> StubService:
    return StubService()


@pytest.fixture
def client(client_of: Callable[..., TestClient]) -> TestClient:
    return client_of(max_items=3, max_text_length=10, max_image_bytes=100, max_body_bytes=400)


@pytest.fixture
def client_of(service: StubService) -> Callable[..., TestClient]:
    """A client of the interface with these keys, this rate limit, or other settings and limits."""

    def client(**options: Any) -> TestClient:
        limits = {name: options.pop(name) for name in list(options) if name in LimitsConfig.model_fields}
        settings = {name: options.pop(name) for name in list(options) if name in ServeConfig.model_fields}
        config = ServeConfig(limits=LimitsConfig(**limits), **{"allowed_hosts": HOSTS} | settings)
        return TestClient(create_api(service, config, **options))

    return client
