"""Promise: a certificate counts for the runtimes and devices that computed its certify rows, and for no others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kcm.bundle.bundle import Bundle, facts
from kcm.bundle.models import ComputedBy, void_reason
from kcm.encoders import EncoderConfig
from kcm.encoders.pixels import PixelsConfig
from kcm.encoders.precomputed import PrecomputedConfig
from kcm.encoders.text import TextEncoderConfig
from kcm.large.adapters.classifier import ClassifierConfig
from kcm.large.adapters.openai import OpenAiConfig
from tests.kcm.bundle.test_bundle import bundle

ONNX = ComputedBy(encoder="onnx on cpu", large="torch on cpu")
TORCH = ComputedBy(encoder="torch on cpu", large="torch on cpu")
GPU = ComputedBy(encoder="torch on cuda", large="torch on cuda")


def test_a_certificate_holds_where_it_was_certified_and_is_void_elsewhere() -> None:
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


def test_without_a_certificate_nothing_can_be_void(tmp_path: Path) -> None:
    found = Bundle.read(replace(bundle(certificates={}), certified_by=GPU).write(tmp_path / "bundle"))
    assert found.certified_by is None
    assert found.void_on("cpu", "cpu") is None


@pytest.mark.parametrize(
    ("encoder", "device", "expected"),
    [
        (TextEncoderConfig(model="m"), "cpu", "torch on cpu"),  # where nothing has measured
        (TextEncoderConfig(model="m", runtime="onnx"), "cpu", "onnx on cpu"),
        (TextEncoderConfig(model="m", runtime="onnx"), "cuda:1", "torch on cuda"),
        (TextEncoderConfig(model="m", precision="int8"), "cpu", "onnx on cpu"),
        (PixelsConfig(), "cuda", ""),
        (PrecomputedConfig(column="vector"), "cuda", ""),
    ],
)
def test_every_encoder_says_what_computes_it(encoder: EncoderConfig, device: str, expected: str) -> None:
    assert encoder.computed_by(device) == expected
    assert ClassifierConfig(encoder=encoder).computed_by(device) == expected


def test_a_server_computes_nothing_here() -> None:
    assert OpenAiConfig(model="big").computed_by("cuda") == ""
