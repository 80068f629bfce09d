"""A bundle's frozen models: before its labels grew and where they are computed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kcm.bundle.bundle import Bundle, facts
from kcm.bundle.frozen_models import ComputedBy, FrozenModels, void_reason, with_first_labels
from kcm.encoders import EncoderConfig
from kcm.encoders.pixels import PixelsConfig
from kcm.encoders.precomputed import PrecomputedConfig
from kcm.encoders.text import TextEncoderConfig
from kcm.large import LinearHead
from kcm.large.adapters.classifier import ClassifierConfig
from kcm.large.adapters.openai import OpenAiConfig
from tests.kcm.bundle.test_bundle import bundle

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


def test_a_head_is_cut_to_the_labels_that_it_had() -> None:
    large, digits = ClassifierConfig(encoder=PrecomputedConfig(columns=("f_*",))), np.arange(6, dtype=np.float32)
    known, grown = (LinearHead(digits.reshape(3, 2)[:count], digits[:count]) for count in (2, 3))
    identity = large.identity(("a", "b"), Path(), head=known)
    found = replace(models("a", "b", "c"), large=large, large_head=grown, none_label=None)
    assert with_first_labels(found, 2, Path()).large_identity == identity


ONNX = ComputedBy(encoder="onnx on cpu", large="torch on cpu")
TORCH = ComputedBy(encoder="torch on cpu", large="torch on cpu")
GPU = ComputedBy(encoder="torch on cuda", large="torch on cuda")


def test_certificate_does_not_hold_on_another_runtime() -> None:
    assert void_reason(ONNX, ONNX) is None
    reason = void_reason(ONNX, GPU)
    assert reason is not None
    for part in ("onnx on cpu", "torch on cuda", "the large model was certified in torch on cpu", "kcm run"):
        assert part in reason
    side = void_reason(ONNX, TORCH)
    assert side is not None
    assert "large model" not in side  # it is the same


def test_a_bundle_keeps_what_computed_its_certify_rows(tmp_path: Path) -> None:
    found = Bundle.read(bundle(certified_by=GPU).write(tmp_path / "bundle"))
    assert found.certified_by == GPU
    void = found.void_on("cpu", "cpu")
    assert void is not None
    assert facts(found, void)["promise"] == f"none here: {void}"
    assert "loses at most 2 points" in facts(found)["promise"]


@pytest.mark.parametrize(
    ("encoder", "device", "expected"),
    [
        (TextEncoderConfig(model="m"), "cpu", "torch on cpu"),  # where nothing has measured
        (TextEncoderConfig(model="m", runtime="onnx"), "cpu", "onnx on cpu"),
        (TextEncoderConfig(model="m", runtime="onnx"), "cuda:1", "torch on cuda"),
        (PixelsConfig(), "cuda", ""),
        (PrecomputedConfig(column="vector"), "cuda", ""),
    ],
)
def test_every_encoder_says_what_computes_it(encoder: EncoderConfig, device: str, expected: str) -> None:
    both = ComputedBy.of(encoder, ClassifierConfig(encoder=encoder), device, device)
    assert both == ComputedBy(encoder=expected, large=expected)
