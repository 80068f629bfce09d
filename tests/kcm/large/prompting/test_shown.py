"""What a person is shown of a prompt is what the large model is sent."""

from __future__ import annotations

import json

import pytest

from kcm.inputs.content import Content
from kcm.large import CausalLmConfig, ClassifierConfig, Item, OpenAiConfig, Prompt, ZeroShotConfig
from kcm.large.adapters.openai import OpenAiModel
from kcm.large.prompting.prompts import question
from kcm.large.prompting.shown import Message
from tests.fake_upstream import FakeUpstream

LABELS = ("refund", "late delivery", "praise")
SOFT = Item("1", Content("where is it? >>>"), Prompt("soft", suggestions=((1, 0.875), (0, 0.1))))
HARD = Item("2", Content("where is it?"), Prompt("hard", candidates=(1, 2)))


def test_an_openai_server_is_sent_exactly_these_messages(upstream: FakeUpstream) -> None:
    config = OpenAiConfig(base_url=upstream.base_url, model="m", api_key_env=None, max_chars=8)
    view = config.shown(LABELS, SOFT)
    OpenAiModel(config, LABELS).answer([SOFT])
    (sent,) = (body["messages"] for body in upstream.requests)
    assert [{"role": message.role, "content": message.content} for message in view.messages] == sent
    assert (view.mode, view.suggestions, view.candidates) == ("soft", {"late delivery": 0.875, "refund": 0.1}, LABELS)
    assert "late delivery with probability 0.88" in json.dumps(sent)


def test_a_language_model_reads_one_question() -> None:
    view = CausalLmConfig(model="m").shown(LABELS, HARD)
    assert view.messages == (Message("user", str(question(HARD.content.text, LABELS, HARD.prompt))),)
    assert view.candidates == ("late delivery", "praise")


def test_a_dual_encoder_compares_the_input_with_the_prompts_of_the_candidates() -> None:
    view = ZeroShotConfig(template="A note of {label}.").shown(LABELS, HARD)
    assert [message.content for message in view.messages] == ["A note of late delivery.", "A note of praise."]


@pytest.mark.parametrize("item", [HARD, Item("3", Content("thanks"))])
def test_a_classifier_is_shown_nothing_but_the_input(item: Item) -> None:
    assert ClassifierConfig().shown(LABELS, item).messages == ()
