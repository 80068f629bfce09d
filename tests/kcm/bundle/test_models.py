"""The frozen models of a bundle can be asked what they were asked before its labels grew."""

from __future__ import annotations

from pathlib import Path

from kcm.bundle.models import FrozenModels, with_first_labels
from kcm.encoders.text import TextEncoderConfig
from kcm.large.adapters.openai import OpenAiConfig

LARGE = OpenAiConfig(model="big", api_key_env=None)


def models(*labels: str) -> FrozenModels:
    return FrozenModels(
        label_names=labels,
        none_label="none of these",
        encoder=TextEncoderConfig(model="small"),
        encoder_identity="small",
        large=LARGE,
        large_identity=LARGE.identity((*labels, "none of these"), Path()),
    )


def test_labels_that_came_later_are_not_offered() -> None:
    earlier = with_first_labels(models("a", "b", "c"), 2, Path(), [LARGE.upstream])
    assert earlier.answer_names == ("a", "b", "none of these")
    assert earlier.large_identity == models("a", "b").large_identity != models("a", "b", "c").large_identity


def test_without_later_labels_nothing_changes() -> None:
    made = models("a", "b")
    assert with_first_labels(made, 2, Path()) is made
