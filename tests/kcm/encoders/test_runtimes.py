"""A network gives in ONNX Runtime what it gives in torch."""

import sys

import numpy as np
import pytest

from kcm.encoders.export import NETWORK, OnnxNetwork
from kcm.encoders.runtime import resolved, runtime_of
from kcm.encoders.text import TextEncoderConfig
from kcm.errors import AssetError
from kcm.inputs.content import contents

TEXTS = contents(
    [
        "a good film .",
        "bad",
        "a very very very good book .",
        "film",
        "a bad film . a good book . very good .",
        "film " * 90,
    ]
)


def text(folder, **options) -> TextEncoderConfig:
    return TextEncoderConfig(model=str(folder), **{"max_length": 64, **options})


def exports(assets) -> list:
    return sorted(path.parent for path in assets.glob(f".onnx/*/{NETWORK}"))


def test_export_is_made_once_and_needs_no_torch(model_folder, tmp_path, monkeypatch):
    config = text(model_folder, runtime="onnx")
    expected = config.load(tmp_path).encode(TEXTS)
    for module in ("transformers", "torch", "kcm.encoders.text_model"):
        monkeypatch.setitem(sys.modules, module, None)  # importing it fails
    np.testing.assert_array_equal(config.load(tmp_path).encode(TEXTS), expected)
    assert len(exports(tmp_path)) == 1


def test_an_export_that_is_not_what_torch_computes_is_refused(model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(
        OnnxNetwork, "__call__", lambda self, inputs, exact=OnnxNetwork.__call__: exact(self, inputs) + 2e-5
    )
    with pytest.raises(AssetError, match=r"differs from torch by 2\.0e-05, more than the allowed 1e-05"):
        text(model_folder, runtime="onnx").load(tmp_path)
    assert exports(tmp_path) == []


def test_runtime_is_no_part_of_the_identity(model_folder, tmp_path):
    by_torch, by_onnx = (text(model_folder, runtime=runtime).identity(tmp_path) for runtime in ("torch", "onnx"))
    assert by_torch == by_onnx


def test_auto_becomes_an_equal_runtime_and_stays_fixed(model_folder, tmp_path):
    config = text(model_folder)
    assert runtime_of(config) == "auto"
    found = resolved(config, tmp_path)
    assert runtime_of(found) == "onnx"
    assert resolved(found, tmp_path) == found
    np.testing.assert_allclose(found.load(tmp_path).encode(TEXTS), config.load(tmp_path).encode(TEXTS), atol=1e-5)
    assert exports(tmp_path)


def test_auto_is_torch_where_the_network_cannot_be_exported(model_folder, tmp_path, monkeypatch):
    def fails(*given, **more):
        raise RuntimeError("no such operator")

    monkeypatch.setattr("torch.onnx.export", fails)
    assert runtime_of(resolved(text(model_folder), tmp_path)) == "torch"
    with pytest.raises(AssetError, match="cannot be exported: no such operator"):
        text(model_folder, runtime="onnx").load(tmp_path)


def test_auto_is_torch_on_a_gpu(tmp_path):
    assert runtime_of(resolved(text("m"), tmp_path, "cuda")) == "torch"
