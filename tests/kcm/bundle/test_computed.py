"""Promise: a certificate counts for what computed the certify rows, and for what was found to answer them alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kcm.bundle.bundle import Bundle
from kcm.bundle.computed import COMPARED, Comparison, ComputedBy, keep_comparison, void_reason
from kcm.bundle.facts import facts
from kcm.encoders import EncoderConfig, TextEncoderConfig
from kcm.encoders.pixels import PixelsConfig
from kcm.encoders.precomputed import PrecomputedConfig
from kcm.errors import ConfigError
from kcm.large import ClassifierConfig, OpenAiConfig
from tests.kcm.bundle.test_bundle import bundle

ONNX = ComputedBy(encoder="onnx on cpu", large="torch on cpu")
TORCH = ComputedBy(encoder="torch on cpu", large="torch on cpu")
GPU = ComputedBy(encoder="torch on cuda", large="torch on cuda")


def test_served_as_it_was_certified_it_holds(tmp_path: Path) -> None:
    assert void_reason(ONNX, tmp_path, "d", ONNX) is None


def test_another_runtime_voids_it_until_somebody_has_compared(tmp_path: Path) -> None:
    reason = void_reason(ONNX, tmp_path, "d", GPU)
    assert reason is not None
    for part in ("onnx on cpu", "torch on cuda", "the large model was certified in torch on cpu", "kcm compare"):
        assert part in reason
    side = void_reason(ONNX, tmp_path, "d", TORCH)
    assert side is not None
    assert "large model" not in side  # it is the same


def test_the_same_answers_let_it_count_for_that_runtime_alone(tmp_path: Path) -> None:
    keep_comparison(tmp_path, "d", Comparison(computed_by=TORCH, num_rows=300, num_different=0))
    assert void_reason(ONNX, tmp_path, "d", TORCH) is None
    assert void_reason(ONNX, tmp_path, "d", GPU) is not None
    assert void_reason(ONNX, tmp_path, "another bundle", TORCH) is not None


def test_one_row_that_differs_voids_it_and_is_counted(tmp_path: Path) -> None:
    keep_comparison(tmp_path, "d", Comparison(computed_by=GPU, num_rows=300, num_different=0))
    keep_comparison(tmp_path, "d", Comparison(computed_by=TORCH, num_rows=300, num_different=0))
    keep_comparison(tmp_path, "d", Comparison(computed_by=TORCH, num_rows=300, num_different=1))  # the later one counts
    reason = void_reason(ONNX, tmp_path, "d", TORCH)
    assert reason is not None
    assert "1 of 300 certify rows" in reason
    assert void_reason(ONNX, tmp_path, "d", GPU) is None


def test_a_damaged_file_proves_nothing(tmp_path: Path) -> None:
    (tmp_path / COMPARED).write_text('{"digest": "d"')
    assert void_reason(ONNX, tmp_path, "d", TORCH) is not None


def test_a_bundle_keeps_what_computed_its_certify_rows(tmp_path: Path) -> None:
    found = Bundle.read(bundle(certified_by=GPU).write(tmp_path / "bundle"))
    assert found.certified_by == GPU
    void = found.void_on(tmp_path / "bundle", "cpu", "cpu")
    assert void is not None
    assert facts(found, void)["promise"] == f"none here: {void}"
    assert "loses at most 2 points" in facts(found)["promise"]


def test_before_it_was_kept_it_was_the_bundle_s_runtimes_on_cpus(tmp_path: Path) -> None:
    found = Bundle.read(bundle(encoder=TextEncoderConfig(model="some/encoder", runtime="onnx")).write(tmp_path / "one"))
    assert found.certified_by == ONNX
    assert found.void_on(tmp_path / "one", "cpu", "cpu") is None
    assert found.in_runtimes("torch", None).computed_by("cpu", "cpu") == TORCH


def test_without_a_certificate_nothing_can_be_void(tmp_path: Path) -> None:
    found = Bundle.read(replace(bundle(certificates={}), certified_by=GPU).write(tmp_path / "bundle"))
    assert found.certified_by is None
    assert found.void_on(tmp_path / "bundle", "cpu", "cpu") is None


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


def test_int8_is_refused_on_a_gpu() -> None:
    with pytest.raises(ConfigError, match="int8 does not run on cuda"):
        TextEncoderConfig(model="m", precision="int8").computed_by("cuda")
