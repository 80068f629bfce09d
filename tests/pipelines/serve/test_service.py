from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kcm.cascade.policy import Policy
from kcm.cascade.runtime import Input, Judgement, SmallSide
from kcm.large import Item, LargeAnswer
from pipelines.serve import service as room
from pipelines.serve.api import PredictResponse, Refusal
from pipelines.serve.config import LargeReplicaConfig, ServeConfig
from pipelines.serve.escalation import Trouble
from pipelines.serve.service import CascadeService

CONFIG = ServeConfig(timeout_s=0.2, retry_after_s=2, large=LargeReplicaConfig(timeout_s=0.1))
FULL = Trouble("the large model has no room for more requests", 503)


class StubSmallSide(SmallSide):
    """Keeps the text `keep`, escalates any other; its answer is always `bad`."""

    def __init__(self, policy: Policy) -> None:
        names = ("bad", "good")
        self.bundle: Any = SimpleNamespace(label_names=names, answer_names=names, prompts=None)
        self.policy, self.top_k = policy, None


class StubEscalation:
    """Gives one outcome after the other, the last one for ever, and remembers what it was asked."""

    def __init__(self, *outcomes: LargeAnswer | Trouble) -> None:
        self._outcomes = list(outcomes)
        self.asked: list[tuple[list[Item], float]] = []

    async def ask(self, items: Sequence[Item], timeout_s: float) -> list[LargeAnswer] | Trouble:
        self.asked.append((list(items), timeout_s))
        outcome = self._outcomes.pop(0) if len(self._outcomes) > 1 else self._outcomes[0]
        return outcome if isinstance(outcome, Trouble) else [outcome] * len(items)


async def judge(item: Input) -> Judgement:
    await asyncio.sleep(60 if item.text == "slow" else 0)
    return Judgement(0, np.array([0.8, 0.2]), 0.8, 1.4, 1.0, item.text == "keep", 0.01)


def service(escalation: StubEscalation, **policy: Any) -> CascadeService:
    return CascadeService(StubSmallSide(Policy(**policy)), judge, escalation, CONFIG, "5")  # type: ignore[arg-type]


def predict(escalation: StubEscalation, *texts: str, **policy: Any) -> PredictResponse:
    return asyncio.run(service(escalation, **policy).predict([Input(text) for text in texts], "id"))


def test_only_escalated_items_travel_and_answers_stay_in_order() -> None:
    escalation = StubEscalation(LargeAnswer(1))
    response = predict(escalation, "x", "keep", "y")
    assert [(answer.route, answer.label) for answer in response.answers] == [
        ("large", "good"),
        ("small", "bad"),
        ("large", "good"),
    ]
    ((items, _),) = escalation.asked
    assert [item.text for item in items] == ["x", "y"]
    assert (response.model_version, response.request_id) == ("5", "id")


def test_an_escalation_has_no_more_time_than_its_own_limit_or_the_request_s() -> None:
    escalation = StubEscalation(LargeAnswer(1))
    predict(escalation, "x")
    assert 0 < escalation.asked[0][1] <= CONFIG.large.timeout_s


def test_small_answers_stand_in_for_escalated_items_alone() -> None:
    answers = predict(StubEscalation(FULL), "keep", "x", on_large_failure="answer_small").answers
    assert [(answer.route, answer.degraded) for answer in answers] == [("small", False), ("small_degraded", True)]


def test_without_a_stand_in_trouble_keeps_its_status() -> None:
    for trouble in (FULL, Trouble("the large model took longer than 0.1 s", 504)):
        with pytest.raises(Refusal) as caught:
            predict(StubEscalation(trouble), "x", on_large_failure="error")
        assert (caught.value.status, caught.value.detail, caught.value.retry_after_s) == (
            trouble.status,
            trouble.reason,
            2,
        )


def test_without_a_stand_in_one_failed_item_refuses_the_request() -> None:
    with pytest.raises(Refusal, match="off the list") as caught:
        predict(StubEscalation(LargeAnswer(None, error="off the list")), "x", on_large_failure="error")
    assert caught.value.status == 503


def test_what_is_not_judged_in_time_is_refused() -> None:
    escalation = StubEscalation(LargeAnswer(1))
    with pytest.raises(Refusal, match="too much to do") as caught:
        predict(escalation, "keep", "slow")
    assert (caught.value.status, caught.value.retry_after_s) == (503, 2)
    assert escalation.asked == []


def test_it_is_ready_once_the_large_model_has_answered_a_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PROBE_INTERVAL_S", 0.0)
    escalation = StubEscalation(FULL, FULL, LargeAnswer(1))
    waiting = service(escalation)
    assert waiting.waiting_for() == "the large model has not answered yet"
    asyncio.run(waiting.become_ready())
    assert waiting.waiting_for() is None
    assert len(escalation.asked) == 3
