"""A text encoder gives the vectors that transformers gives, whatever batch a text travels in."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from kcm.encoders.text import TextEncoder, TextEncoderConfig
from kcm.errors import AssetError
from kcm.inputs.content import contents

TEXTS = ["a good film .", "bad", "a very very very good book .", "film", "a bad film . a good book . very good .", ""]


def encoder(folder, **options) -> TextEncoder:
    return TextEncoder(TextEncoderConfig(model=str(folder), **options), folder)


def by_hand(folder, text: str, pooling: str) -> np.ndarray:
    """One text alone, without padding, straight through transformers."""
    model = AutoModel.from_pretrained(folder).eval()
    tokens = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**tokens).last_hidden_state[0]
    vector = hidden[0] if pooling == "cls" else hidden.mean(0)
    return (vector / vector.norm()).numpy()


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_are_those_of_each_text_alone_in_the_order_given(pooling, model_folder):
    features = encoder(model_folder, pooling=pooling, batch_size=2).encode(contents(TEXTS))
    expected = np.stack([by_hand(model_folder, text, pooling) for text in TEXTS])
    np.testing.assert_allclose(features, expected, atol=1e-5)
    assert features.dtype == np.float32
    assert features.shape == (len(TEXTS), 32)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_batch_a_text_travels_in_does_not_matter(batch_size, model_folder):
    together = encoder(model_folder, batch_size=batch_size).encode(contents(TEXTS))
    np.testing.assert_allclose(together, encoder(model_folder).encode(contents(TEXTS[::-1]))[::-1], atol=1e-5)


def test_tokens_beyond_the_length_are_cut_off(model_folder):
    short = encoder(model_folder, max_length=6)
    first, second = short.encode(contents(["a good film .", "a good film . very bad book"]))
    np.testing.assert_allclose(first, second, atol=1e-6)
    full = encoder(model_folder)
    assert np.abs(np.subtract(*full.encode(contents(["a good film .", "a good film . very bad book"])))).max() > 1e-3


@pytest.mark.parametrize("runtime", ["torch", "onnx"])
def test_texts_that_are_cut_are_counted(runtime, model_folder, tmp_path):
    config = TextEncoderConfig(model=str(model_folder), max_length=6, runtime=runtime)
    short = config.load(tmp_path)
    assert short.num_cut(["a good film .", "a good film . very bad book", "film " * 50]) == 2


def test_bfloat16_is_close_to_float32_and_comes_out_as_float32(model_folder):
    low, full = (encoder(model_folder, precision=name).encode(contents(TEXTS)) for name in ("bfloat16", "float32"))
    assert low.dtype == np.float32
    assert 0 < np.abs(low - full).max() < 0.1
    assert np.linalg.norm(low, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-5)


def test_no_texts_give_no_vectors(model_folder):
    assert encoder(model_folder).encode([]).shape == (0, 32)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(AssetError, match="holds no model"):
        encoder(tmp_path)


def test_a_model_of_an_unknown_kind_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "no such kind"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(AssetError, match="cannot load the model"):
        encoder(tmp_path)


def test_truncated_weights_are_refused(model_folder, tmp_path):
    copy = shutil.copytree(model_folder, tmp_path / "copy")
    weights = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(AssetError, match="cannot load the model"):
        encoder(copy)


def test_weights_that_are_missing_are_not_drawn_at_random(model_folder, tmp_path):
    copy = shutil.copytree(model_folder, tmp_path / "copy")
    tensors = load_file(copy / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(AssetError, match=r"lacks weights, such as 'encoder\.layer\.1\.output\.dense\.weight'"):
        encoder(copy)


def test_a_text_is_cut_at_what_the_model_takes(model_folder, tmp_path):
    copy = shutil.copytree(model_folder, tmp_path / "copy")
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    (copy / "tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": 64}))
    long = contents(["film " * 200])
    np.testing.assert_array_equal(encoder(copy, max_length=500).encode(long), encoder(copy, max_length=64).encode(long))
