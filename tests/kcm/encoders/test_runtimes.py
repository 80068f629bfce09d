"""A network gives in ONNX Runtime what it gives in torch; in int8 it gives its own, whatever batch an input is in."""

import sys

import numpy as np
import pytest

from kcm.config import parse_config
from kcm.encoders import export
from kcm.encoders.export import NETWORK, OnnxNetwork
from kcm.encoders.runtime import resolved, runtime_of
from kcm.encoders.text import TextEncoderConfig
from kcm.errors import AssetError, ConfigError
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


def test_int8_vectors_do_not_depend_on_the_batch(model_folder, tmp_path):
    low, full = (text(model_folder, precision=precision).build(tmp_path) for precision in ("int8", "float32"))
    together = low.encode(TEXTS)
    alone = np.concatenate([low.encode([each]) for each in TEXTS])
    np.testing.assert_array_equal(together, alone)
    assert 1e-4 < np.abs(together - full.encode(TEXTS)).max() < 0.5


def test_int8_that_turns_vectors_too_far_is_refused(model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "INT8_COSINE", 1.1)
    with pytest.raises(AssetError, match=r"turns a probe's vector too far: cosine [0-9.]+, expected at least 1\.1"):
        text(model_folder, precision="int8").load(tmp_path)
    assert exports(tmp_path) == []


def test_precision_is_part_of_the_identity_and_runtime_is_not(model_folder, tmp_path):
    identities = {
        (precision, runtime): text(model_folder, precision=precision, runtime=runtime).identity(tmp_path)
        for precision, runtime in [("float32", "torch"), ("float32", "onnx"), ("int8", "onnx"), ("bfloat16", "torch")]
    }
    assert identities["float32", "torch"] == identities["float32", "onnx"]
    assert len(set(identities.values())) == 3


@pytest.mark.parametrize(("precision", "runtime"), [("int8", "torch"), ("bfloat16", "onnx")])
def test_a_precision_that_the_runtime_does_not_have_is_refused(precision, runtime):
    with pytest.raises(ConfigError, match=f"precision {precision} needs runtime"):
        parse_config(TextEncoderConfig, {"model": "m", "precision": precision, "runtime": runtime})


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


def test_int8_on_a_gpu_is_refused(model_folder, tmp_path):
    with pytest.raises(ConfigError, match="int8 does not run on cuda"):
        text(model_folder, precision="int8").load(tmp_path, "cuda")


def test_auto_is_torch_on_a_gpu_and_what_the_precision_needs(tmp_path):
    assert runtime_of(resolved(text("m"), tmp_path, "cuda")) == "torch"
    assert runtime_of(resolved(text("m", precision="int8"), tmp_path)) == "onnx"
    assert runtime_of(resolved(text("m", precision="bfloat16"), tmp_path)) == "torch"
