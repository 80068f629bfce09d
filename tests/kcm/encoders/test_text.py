"""A text encoder gives the vectors that transformers gives, whatever batch a text travels in."""

import gc
import json
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers as library
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers.sentence_transformer import modules
from torch import nn
from transformers import AutoModel, AutoTokenizer

from kcm.encoders.text import TextEncoder, TextEncoderConfig
from kcm.errors import AssetError, ConfigError
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


@pytest.mark.parametrize("runtime", ["torch", "onnx"])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_are_those_of_each_text_alone_in_the_order_given(pooling, runtime, model_folder, tmp_path):
    config = TextEncoderConfig(model=str(model_folder), pooling=pooling, runtime=runtime, batch_size=2)
    features = config.load(tmp_path).encode(contents(TEXTS))
    expected = np.stack([by_hand(model_folder, text, pooling) for text in TEXTS])
    np.testing.assert_allclose(features, expected, atol=1e-5)
    assert features.dtype == np.float32
    assert features.shape == (len(TEXTS), 32)


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


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(AssetError, match="holds no model"):
        encoder(tmp_path)


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


def identity(folder, **options) -> str:
    return TextEncoderConfig(model=str(folder), **options).identity(folder)


def test_copy_and_batch_size_keep_the_identity(model_folder, tmp_path):
    copy = shutil.copytree(model_folder, tmp_path / "copy")
    (copy / "README.md").write_text("notes")
    assert identity(copy, batch_size=1) == identity(model_folder)
    assert TextEncoder(TextEncoderConfig(model=str(copy)), copy).identity == identity(model_folder)


@pytest.mark.parametrize("options", [{"pooling": "cls"}, {"max_length": 64}])
def test_what_changes_the_vectors_changes_the_identity(options, model_folder):
    assert identity(model_folder, **options) != identity(model_folder)


@pytest.mark.parametrize("file", ["tokenizer.json", "config.json", "tokenizer_config.json"])
def test_another_tokenizer_or_architecture_changes_the_identity(file, model_folder, tmp_path):
    copy = shutil.copytree(model_folder, tmp_path / "copy")
    (copy / file).write_text(
        (copy / file).read_text().replace("film", "movie").replace("BertModel", "Bert").replace("[MASK]", "[M]")
    )
    assert identity(copy) != identity(model_folder)


def test_equal_encoders_are_one_object_and_others_are_not(model_folder, tmp_path):
    config = TextEncoderConfig(model=str(model_folder))
    first = config.build(tmp_path)
    assert TextEncoderConfig(model=str(model_folder)).build(tmp_path) is first
    assert config.model_copy(update={"pooling": "cls"}).build(tmp_path) is not first


def test_an_encoder_whose_files_have_changed_is_another_one(make_model, model_folder, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "model")
    config = TextEncoderConfig(model=str(folder))
    first = config.build(tmp_path)
    shutil.copy(make_model(1) / "model.safetensors", folder / "model.safetensors")
    second = config.build(tmp_path)
    assert second is not first
    assert second.identity != first.identity


def test_an_encoder_that_nobody_uses_leaves_memory(model_folder, tmp_path):
    config = TextEncoderConfig(model=str(model_folder), max_length=7)
    gone = weakref.ref(config.build(tmp_path))
    gc.collect()
    assert gone() is None


SENTENCES = [
    "a good film .",
    "bad",
    "a Very very very good book .",
    "film",
    "a bad film . a good book . very good .",
    ".",
]

Build = Callable[..., list[nn.Module]]


def pooled(mode: str, **options: Any) -> Build:
    return lambda backbone: [backbone, modules.Pooling(32, mode, **options)]


def dense(backbone: nn.Module) -> list[nn.Module]:
    torch.manual_seed(1)
    return [backbone, modules.Pooling(32, "mean"), modules.Dense(32, 8), modules.Normalize()]


MODELS: dict[str, Build] = {
    "max": pooled("max"),
    "weightedmean": pooled("weightedmean"),
    "lasttoken": pooled("lasttoken"),
    "dense": dense,
}


@pytest.fixture
def model(model_folder: Path, tmp_path: Path) -> Callable[..., Any]:
    """`model(build, **options)` saves a model of the library, and gives it."""

    def make(build: Build, **options: Any) -> Any:
        backbone = modules.Transformer(str(model_folder), max_seq_length=64)
        made = library.SentenceTransformer(modules=build(backbone), device="cpu", **options)
        made.save(str(tmp_path / "model"))
        return made

    return make


def encoded(folder: Path, **options: Any) -> np.ndarray:
    config = TextEncoderConfig(model=str(folder / "model"), **options)
    return config.load(folder).encode(contents(SENTENCES))


@pytest.mark.parametrize("runtime", ["torch", "onnx"])
@pytest.mark.parametrize("name", MODELS)
def test_vectors_are_those_of_the_library(name: str, runtime: str, model: Callable[..., Any], tmp_path: Path) -> None:
    expected = model(MODELS[name]).encode(SENTENCES, normalize_embeddings=True)
    np.testing.assert_allclose(encoded(tmp_path, runtime=runtime), expected, atol=1e-5)


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("name", [None, "document"])
def test_prompts_are_those_of_the_library(
    name: str | None, include: bool, model: Callable[..., Any], tmp_path: Path
) -> None:
    prompts = {"query": "very bad book . ", "document": "a film . "}
    made = model(pooled("mean", include_prompt=include), prompts=prompts, default_prompt_name="query")
    expected = made.encode(SENTENCES, prompt_name=name, normalize_embeddings=True)
    np.testing.assert_allclose(encoded(tmp_path, prompt=name), expected, atol=1e-5)
    with pytest.raises(ConfigError, match=r"no prompt 'passage'.*Its prompts are 'document', 'query'"):
        encoded(tmp_path, prompt="passage")


def test_model_with_declared_truncation_needs_no_setting(model: Callable[..., Any], tmp_path: Path) -> None:
    expected = model(pooled("mean"), truncate_dim=7).encode(SENTENCES, normalize_embeddings=True)
    assert expected.shape[1] == 7
    np.testing.assert_allclose(encoded(tmp_path), expected, atol=1e-5)
    assert encoded(tmp_path, truncate_dim=5).shape[1] == 5


def test_a_backbone_below_the_folder_is_found(model: Callable[..., Any], tmp_path: Path) -> None:
    expected = model(pooled("cls")).encode(SENTENCES, normalize_embeddings=True)
    folder, listed = tmp_path / "model", json.loads((tmp_path / "model" / "modules.json").read_text())
    (folder / "0_Transformer").mkdir()
    for file in [path for path in folder.iterdir() if path.is_file() and path.name not in ("modules.json",)]:
        shutil.move(file, folder / "0_Transformer" / file.name)
    (folder / "modules.json").write_text(json.dumps([{**listed[0], "path": "0_Transformer"}, *listed[1:]]))
    np.testing.assert_allclose(encoded(tmp_path), expected, atol=1e-5)
    assert np.abs(encoded(tmp_path, pooling="mean") - expected).max() > 1e-3


def test_foreign_module_needs_an_explicit_pooling(model_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model_folder, tmp_path / "model")
    kinds = ["sentence_transformers.models.Transformer", "shutil.Error"]
    (copy / "modules.json").write_text(json.dumps([{"path": "", "type": kind} for kind in kinds]))
    with pytest.raises(ConfigError, match=r"the module shutil\.Error.*set pooling: mean"):
        encoded(tmp_path)
    plain = TextEncoder(TextEncoderConfig(model=str(model_folder), pooling="mean"), model_folder)
    np.testing.assert_array_equal(encoded(tmp_path, pooling="mean"), plain.encode(contents(SENTENCES)))


def test_prompts_go_with_the_models_own_pooling() -> None:
    with pytest.raises(ValueError, match="goes with pooling: auto"):
        TextEncoderConfig(model="any", prompt="query", pooling="mean")
