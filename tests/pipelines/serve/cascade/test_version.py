"""A version answers, escalates, degrades and refuses; its explanations are those of a real small side."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from kcm.bundle.answers import Input, Judgement
from kcm.bundle.runtime import SmallSide
from kcm.cascade.policy import KEEP_ALL, Decision, Policy
from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.errors import DataError
from kcm.inputs.content import IMAGE, TEXT, Content
from kcm.inputs.pictures import PictureError
from kcm.large import LargeAnswer
from kcm.large.adapters.openai import OpenAiConfig
from pipelines.serve.cascade.models.escalation import LargeUnavailable
from pipelines.serve.cascade.version import NO_CURVES
from pipelines.serve.config import LargeReplicaConfig, LimitsConfig, ServeConfig
from pipelines.serve.errors import (
    BusyError,
    InvalidInputError,
    LargeTimeoutError,
    SmallSideBusyError,
    SmallSideError,
)
from pipelines.serve.log.entries import Origin
from pipelines.serve.schemas import ExplainResponse, PredictResponse
from tests.kcm.bundle.test_bundle import bundle as any_bundle
from tests.pipelines.serve.stubs import StubEncoder, StubEscalation, StubSide, picture, service_of, version_of

CONFIG = ServeConfig()
HASTY = ServeConfig(timeout_s=0.2, large=LargeReplicaConfig(timeout_s=0.1))
INTACT, DAMAGED = picture(1), picture(13)
FULL = LargeUnavailable("the large model has no room for more requests", BusyError)


class TroubledSide(StubSide):
    """Takes its time for the text `slow`, and has no numbers for `nan`."""

    def judge_features(self, features_ND: Any, inputs: Sequence[Input], encoded_s: float) -> list[Judgement]:
        if any(item.content.text == "slow" for item in inputs):
            time.sleep(0.5)
        if any(item.content.text == "nan" for item in inputs):
            raise DataError("the judge's logits are not numbers")
        return super().judge_features(features_ND, inputs, encoded_s)


def predict(
    escalation: StubEscalation,
    *texts: str,
    task: str | None = None,
    max_waiting: int = 100,
    config: ServeConfig = CONFIG,
    **policy: Any,
) -> PredictResponse:
    async def answered() -> PredictResponse:
        version = version_of(TroubledSide(Policy(**policy)), escalation, config, max_waiting=max_waiting)
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


@pytest.mark.parametrize("outcome", [FULL, LargeAnswer(None, error="status 503", outage=True)], ids=["full", "fault"])
def test_small_answers_stand_in_for_escalated_items_alone(outcome: Any) -> None:
    """Promise: whether the large model gives no answers or an error to an item, the small model's answer is flagged."""
    answers = predict(StubEscalation(outcome), "keep", "x", on_large_failure="answer_small").answers
    assert [(answer.route, answer.degraded) for answer in answers] == [("small", False), ("small_degraded", True)]


def test_without_a_stand_in_trouble_keeps_its_kind() -> None:
    late = LargeUnavailable("the large model took longer than 0.1 s", LargeTimeoutError)
    for unavailable, error in ((FULL, BusyError), (late, LargeTimeoutError)):
        with pytest.raises(error, match=unavailable.reason):
            predict(StubEscalation(unavailable), "x", on_large_failure="error")


@pytest.mark.parametrize(
    ("text", "config", "reason"),
    [("slow", HASTY, "the service is overloaded"), ("nan", CONFIG, "the small side failed")],
)
def test_what_is_not_judged_is_refused_and_not_escalated(text: str, config: ServeConfig, reason: str) -> None:
    escalation = StubEscalation(LargeAnswer(1))
    with pytest.raises(SmallSideError, match=reason):
        predict(escalation, "keep", text, config=config)
    assert escalation.asked == []


def test_unknown_task_is_refused_with_the_nearest_name() -> None:
    """Promise: a task that the model does not know is refused with the nearest one."""
    with pytest.raises(InvalidInputError, match=r"inputs\[0\].task: there is no such task, did you mean 'movies'"):
        predict(StubEscalation(LargeAnswer(1)), "keep", task="movie")
    assert predict(StubEscalation(LargeAnswer(1)), "keep", task="movies").answers


@pytest.mark.parametrize(
    ("reads", "given", "detail"),
    [
        (IMAGE, Content("a text"), "inputs[1].image: this model reads image, but it is missing"),
        (TEXT, Content(image=INTACT), "inputs[1].text: this model reads text, but it is missing"),
        (TEXT, Content("a text", INTACT), "inputs[1].image: this model reads only text"),
        (TEXT | IMAGE, Content("a text"), "inputs[1].image: this model reads image and text, but it is missing"),
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

    with pytest.raises(InvalidInputError) as refused:
        await answered()
    assert refused.value.detail == detail


class LengthEncoder:
    """Features that follow from the lengths of a text's words."""

    dim, reads, identity = 4, TEXT, "length"

    def encode(self, inputs: Sequence[Content]) -> np.ndarray:
        return np.array([[np.cos(example.size * k) for k in range(1, 5)] for example in inputs], np.float32)


def explained(
    example: Input,
    kind: str = "kan",
    network: dict[str, Any] | None = None,
    max_items: int = 128,
    max_waiting: int = 100,
    **policy: Any,
) -> ExplainResponse:
    shape = NetworkConfig(**{"hidden": ()} | (network or {}))
    bundle = any_bundle(
        collaborator=Collaborator(4, 2, shape, kind, seed=0).requires_grad_(False),  # type: ignore[arg-type]
        label_names=("negative", "positive"),
        task_names=("films",),
        large=OpenAiConfig(model="m", api_key_env=None),
        large_head=None,
        policy=Policy(**{"decision": KEEP_ALL} | policy),
        certificates={},
    )
    side = SmallSide(bundle, LengthEncoder())
    config = ServeConfig(limits=LimitsConfig(max_items=max_items))

    async def explain() -> ExplainResponse:
        no_escalation = None  # an explanation asks no large model
        version = version_of(side, no_escalation, config, name="7", max_waiting=max_waiting, encoder=side.encoder)
        return await version.explain(example, 3, "mine")

    return asyncio.run(explain())


def test_an_explanation_has_words_and_curves_of_both_networks() -> None:
    found = explained(Input(Content("not a good film")))
    assert (found.model_version, found.request_id, found.escalated) == ("7", "mine", False)
    assert [word for word, _ in found.words] == ["not", "a", "good", "film"]
    assert (list(found.reasons), found.no_curves) == (["judge", "small"], None)
    for reasons in found.reasons.values():
        assert (len(reasons.contributions), reasons.label_name) == (3, found.label)


def test_the_prompt_is_the_one_that_an_escalated_input_is_sent() -> None:
    found = explained(Input(Content("a film")), decision=Decision(decision="threshold", threshold=1e6))
    assert found.escalated
    assert [message.role for message in found.messages] == ["system", "user"]
    assert "negative, positive" in found.messages[0].content


@pytest.mark.parametrize(
    ("kind", "network"), [("mlp", {"hidden": (3,)}), ("kan", {"basis": "relu", "mixing": 9}), ("random_relu", {})]
)
def test_curveless_networks_still_explain_the_words(kind: str, network: Any) -> None:
    """Promise: networks without curves say so and the words are there all the same."""
    found = explained(Input(Content("a good film")), kind=kind, network=network)
    assert (found.reasons, found.no_curves, len(found.words)) == ({}, NO_CURVES, 3)


def test_explanation_takes_at_most_the_items_of_a_request() -> None:
    """Promise: an explanation takes no more items than a request may have."""
    assert len(explained(Input(Content("word " * 100)), max_items=10).words) == 9
    assert len(explained(Input(Content("word " * 100))).words) == 60


def test_an_explanation_is_refused_as_a_prediction_is() -> None:
    with pytest.raises(InvalidInputError, match=r"^input\.task: there is no such task, did you mean 'films'\?"):
        explained(Input(Content("a film"), "filmz"))
    with pytest.raises(SmallSideBusyError, match="too many items wait"):
        explained(Input(Content("word " * 30)), max_waiting=16)


@pytest.mark.parametrize(
    ("text", "whole_s", "large_s", "most_s"), [("x", 20.0, 10.0, 10.0), ("slow", 20.0, 19.9, 19.5)]
)
def test_escalation_time_is_limited_by_its_own_and_the_rest(
    text: str, whole_s: float, large_s: float, most_s: float
) -> None:
    """Promise: an escalation has no more time than its own limit or what judging left."""
    escalation = StubEscalation(LargeAnswer(1))
    predict(escalation, text, config=ServeConfig(timeout_s=whole_s, large=LargeReplicaConfig(timeout_s=large_s)))
    assert 0 < escalation.asked[0][1] <= most_s
