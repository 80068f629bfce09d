"""The faster runtime is measured once for an encoder on a machine, and only what was compared is remembered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kcm.encoders.runtime import fastest as measured
from kcm.encoders.runtime.fastest import fastest
from kcm.encoders.runtime.network import Runtime


def never() -> dict[Runtime, float]:
    raise AssertionError("measured again")


def taking(**seconds: float) -> Callable[[], dict[Runtime, float]]:
    return lambda: seconds  # type: ignore[return-value]


@pytest.mark.parametrize(("torch", "onnx", "faster"), [(2.0, 1.0, "onnx"), (1.0, 2.0, "torch"), (1.0, 1.1, "onnx")])
def test_the_faster_one_is_remembered(torch: float, onnx: float, faster: str, tmp_path: Path) -> None:
    assert fastest(tmp_path, "encoder", taking(torch=torch, onnx=onnx)) == faster
    assert fastest(tmp_path, "encoder", never) == faster


def test_another_encoder_or_machine_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fastest(tmp_path, "encoder", taking(torch=2.0, onnx=1.0))
    assert fastest(tmp_path, "other", taking(torch=1.0, onnx=2.0)) == "torch"
    monkeypatch.setattr(measured, "_processor", lambda: "another")
    assert fastest(tmp_path, "encoder", taking(torch=1.0, onnx=2.0)) == "torch"


@pytest.mark.parametrize("damaged", ["{", "{}", "[]", '{"torch": "soon", "onnx": 1}'])
def test_one_runtime_alone_and_a_damaged_file_are_measured_again(damaged: str, tmp_path: Path) -> None:
    assert fastest(tmp_path, "encoder", taking(torch=0.0)) == "torch"
    assert fastest(tmp_path, "encoder", taking(torch=2.0, onnx=1.0)) == "onnx"
    (file,) = tmp_path.glob(".onnx/*.seconds.json")
    file.write_text(damaged)
    assert fastest(tmp_path, "encoder", taking(torch=1.0, onnx=2.0)) == "torch"


def test_assets_that_cannot_be_written_are_measured_every_time(tmp_path: Path) -> None:
    (tmp_path / ".onnx").write_text("a file where the folder would be")
    assert fastest(tmp_path, "encoder", taking(torch=2.0, onnx=1.0)) == "onnx"
    assert fastest(tmp_path, "encoder", taking(torch=1.0, onnx=2.0)) == "torch"
