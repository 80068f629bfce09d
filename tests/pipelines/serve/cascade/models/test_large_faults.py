"""Promise: whatever a remote large model does, a request is answered in time, by the small model where need be.

The large model is the adapter of a real HTTP server that is scripted request by request; only Ray is left out.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kcm.bundle.answers import Answer, Input
from kcm.cascade.policy import Policy
from kcm.inputs.content import Content
from kcm.large.adapters.openai import OpenAiConfig, OpenAiModel
from kcm.large.response_cache import ResponseStore
from pipelines.serve.breaker import Breaker, BreakerConfig
from pipelines.serve.cascade.models.escalation import Escalation
from pipelines.serve.cascade.models.queues import QuestionQueue
from pipelines.serve.config import LargeReplicaConfig, ServeConfig
from pipelines.serve.log.entries import Origin
from pipelines.serve.release import Release
from tests.fake_upstream import FakeUpstream, Turn, completion, label
from tests.pipelines.serve.stubs import Handle, StubSide, service_of, version_of

LABELS = ("negative", "positive")
CONFIG = ServeConfig(timeout_s=8.0, large=LargeReplicaConfig(timeout_s=4.0, attempt_timeout_s=2.0))

FAULTS = {
    "500": Turn(status=500),
    "503": Turn(status=503),
    "429 with Retry-After": Turn(status=429, headers={"Retry-After": "30"}),
    "a slow first byte": Turn(delay_s=60.0),
    "a stall": Turn(body="x" * 100, stall_after=10),
    "a cut": Turn(body="x" * 100, cut_after=10),
    "garbage": Turn(body=b"\xff\x00 garbage"),
    "another form": Turn(body="[]"),
    "a label that is not on the list": label("lukewarm"),
    "nothing": completion(None),
    "a deep reply": Turn(body="[" * 100_000),
    "a deep answer": completion("[" * 100_000),
    "a compressed reply": Turn(body=gzip.compress(bytes(10**7)), headers={"Content-Encoding": "gzip"}),
    "a wrong length": Turn(body="{}", headers={"Content-Length": "5000"}, cut_after=2),
}


def served(base_url: str, folder: Path, texts: Sequence[str]) -> list[Answer]:
    """The answers to one request after the other."""
    model = OpenAiModel(
        OpenAiConfig(base_url=base_url, model="big", timeout_s=0.3, max_retries=0, max_wait_s=0.05),
        LABELS,
        ResponseStore.in_file(folder / "paid.sqlite"),
    )

    async def answer() -> list[Answer]:
        small_side = StubSide(Policy(on_large_failure="answer_small"), names=LABELS, task_names=())
        questions = QuestionQueue(model.ask, max_waiting=8, timeout_s=CONFIG.large.attempt_timeout_s)
        handle: Any = Handle(lambda items, _: questions.submit(items))
        release = Release(version="1", bundle=folder)
        breaker = Breaker(BreakerConfig(failures=100))
        escalation = Escalation(handle, release, len(LABELS), CONFIG.large, breaker)
        service = await service_of(version_of(small_side, escalation, CONFIG, name="1"))
        responses = [await service.predict([Input(Content(text))], Origin("id")) for text in texts]
        return [response.answers[0] for response in responses]

    return asyncio.run(asyncio.wait_for(answer(), 30))


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-this-test")


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_of_the_large_model_gives_a_flagged_answer_and_is_over_with_it(
    upstream: FakeUpstream, tmp_path: Path, fault: Turn
) -> None:
    """Promise: the small model's answer stands in and says so, and the next request reaches the large model again."""
    upstream.otherwise = lambda body: fault if "first" in str(body["messages"]) else label("positive")
    first, second = served(upstream.base_url, tmp_path, ["the first", "another"])
    assert (first.route, first.degraded, first.label) == ("small_degraded", True, "negative")
    assert (second.route, second.degraded, second.label) == ("large", False, "positive")


def test_a_large_model_that_refuses_connections_gives_a_flagged_answer(tmp_path: Path) -> None:
    """Promise: a server that is not there degrades answers, and fails none."""
    (answer,) = served("http://127.0.0.1:9/v1", tmp_path, ["x"])
    assert (answer.route, answer.degraded) == ("small_degraded", True)
