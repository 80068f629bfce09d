from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from kcm.bundle.answers import Input, Judgement
from kcm.cascade.policy import Policy
from kcm.errors import DataError
from kcm.inputs.content import IMAGE, TEXT, Content
from kcm.inputs.pictures import PictureError
from kcm.large import LargeAnswer
from pipelines.serve.cascade.models.escalation import LargeUnavailable
from pipelines.serve.config import LargeReplicaConfig, ServeConfig
from pipelines.serve.log.entries import Origin
from pipelines.serve.schemas import PredictResponse, Refusal
from tests.pipelines.serve.stubs import StubEncoder, StubEscalation, StubSide, picture, service_of, version_of

CONFIG = ServeConfig(timeout_s=0.2, large=LargeReplicaConfig(timeout_s=0.1))
INTACT, DAMAGED = picture(1), picture(13)
FULL = LargeUnavailable("the large model has no room for more requests", 429)


class TroubledSide(StubSide):
    """Takes its time for the text `slow`, and has no numbers for `nan`."""

    def judge_features(self, features_ND: Any, inputs: Sequence[Input], encoded_s: float) -> list[Judgement]:
        if any(item.content.text == "slow" for item in inputs):
            time.sleep(0.5)
        if any(item.content.text == "nan" for item in inputs):
            raise DataError("the judge's logits are not numbers")
        return super().judge_features(features_ND, inputs, encoded_s)


def predict(
    escalation: StubEscalation, *texts: str, task: str | None = None, max_waiting: int = 100, **policy: Any
) -> PredictResponse:
    async def answered() -> PredictResponse:
        version = version_of(TroubledSide(Policy(**policy)), escalation, CONFIG, max_waiting=max_waiting)
        service = await service_of(version)
        return await service.predict([Input(Content(text), task) for text in texts], Origin("id"))

    return asyncio.run(answered())


def test_only_escalated_items_travel_and_answers_stay_in_order() -> None:
    escalation = StubEscalation(LargeAnswer(1))
    response = predict(escalation, "x", "keep", "y")
    assert [(answer.route, answer.label) for answer in response.answers] == [
        ("large", "good"),
        ("small", "bad"),
        ("large", "good"),
    ]
    ((items, _),) = escalation.asked
    assert [item.content.text for item in items] == ["x", "y"]
    assert (response.model_version, response.request_id) == ("5", "id")


def test_each_stage_has_its_seconds_and_the_large_one_none_where_all_was_kept() -> None:
    kept = predict(StubEscalation(LargeAnswer(1)), "keep").timings
    escalated = predict(StubEscalation(LargeAnswer(1)), "keep", "x").timings
    assert kept.large_s == 0.0 < escalated.large_s
    assert 0 < kept.judge_s <= kept.total_s


def test_an_escalation_has_no_more_time_than_its_own_limit_or_the_request_s() -> None:
    escalation = StubEscalation(LargeAnswer(1))
    predict(escalation, "x")
    assert 0 < escalation.asked[0][1] <= CONFIG.large.timeout_s


def test_small_answers_stand_in_for_escalated_items_alone() -> None:
    answers = predict(StubEscalation(FULL), "keep", "x", on_large_failure="answer_small").answers
    assert [(answer.route, answer.degraded) for answer in answers] == [("small", False), ("small_degraded", True)]


def test_without_a_stand_in_trouble_keeps_its_status() -> None:
    for unavailable in (FULL, LargeUnavailable("the large model took longer than 0.1 s", 504)):
        with pytest.raises(Refusal) as caught:
            predict(StubEscalation(unavailable), "x", on_large_failure="error")
        assert (caught.value.status, caught.value.detail, caught.value.retry_after_s) == (
            unavailable.status,
            unavailable.reason,
            1,
        )


def test_without_a_stand_in_one_failed_item_refuses_the_request() -> None:
    with pytest.raises(Refusal, match="off the list") as caught:
        predict(StubEscalation(LargeAnswer(None, error="off the list")), "x", on_large_failure="error")
    assert caught.value.status == 503


@pytest.mark.parametrize(
    ("text", "status", "reason"), [("slow", 503, "too much to do"), ("nan", 503, "the small side failed")]
)
def test_what_is_not_judged_is_refused_and_not_escalated(text: str, status: int, reason: str) -> None:
    escalation = StubEscalation(LargeAnswer(1))
    with pytest.raises(Refusal, match=reason) as caught:
        predict(escalation, "keep", text)
    assert (caught.value.status, caught.value.retry_after_s) == (status, 1)
    assert escalation.asked == []


def test_a_full_queue_tells_the_client_to_come_back() -> None:
    with pytest.raises(Refusal, match="too many items wait") as caught:
        predict(StubEscalation(LargeAnswer(1)), "keep", "keep", max_waiting=1)
    assert (caught.value.status, caught.value.retry_after_s) == (429, 1)


def test_a_task_that_the_model_does_not_know_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(Refusal, match=r"inputs\[0\].task: there is no such task, did you mean 'movies'") as caught:
        predict(StubEscalation(LargeAnswer(1)), "keep", task="movie")
    assert (caught.value.status, caught.value.retry_after_s) == (422, None)
    assert predict(StubEscalation(LargeAnswer(1)), "keep", task="movies").answers


@pytest.mark.parametrize(
    ("reads", "given", "detail"),
    [
        (IMAGE, Content("a text"), "inputs[1].image: this model reads image, and there is none"),
        (TEXT, Content(image=INTACT), "inputs[1].text: this model reads text, and there is none"),
        (TEXT, Content("a text", INTACT), "inputs[1].image: this model reads text alone"),
        (TEXT | IMAGE, Content("a text"), "inputs[1].image: this model reads image and text, and there is none"),
        (IMAGE, Content(image=DAMAGED), "inputs[1].image: the image is damaged"),
    ],
)
async def test_an_item_that_cannot_be_read_is_refused_by_its_place(reads: Any, given: Content, detail: str) -> None:
    def read(content: Content) -> Content:
        if content.image == DAMAGED:
            raise PictureError("the image is damaged")
        return content

    small_side = StubSide(reads=reads)
    whole = Content("keep" if "text" in reads else "", INTACT if "image" in reads else b"")

    async def answered() -> PredictResponse:
        version = version_of(small_side, StubEscalation(LargeAnswer(1)), CONFIG, encoder=StubEncoder(read))
        return await (await service_of(version)).predict([Input(whole), Input(given)], Origin("id"))

    with pytest.raises(Refusal) as refused:
        await answered()
    assert (refused.value.status, refused.value.detail, refused.value.retry_after_s) == (422, detail, None)
