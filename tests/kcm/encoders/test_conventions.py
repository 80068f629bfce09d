"""A model of sentence-transformers gives the vectors that the library itself gives, whatever its modules are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers as library
import torch
from sentence_transformers.sentence_transformer import modules
from torch import nn

from kcm.encoders.text import TextEncoder, TextEncoderConfig
from kcm.errors import ConfigError
from kcm.inputs.content import contents

TEXTS = ["a good film .", "bad", "a Very very very good book .", "film", "a bad film . a good book . very good .", "."]

Build = Callable[..., list[nn.Module]]


def pooled(mode: str | tuple[str, ...], **options: Any) -> Build:
    return lambda backbone: [backbone, modules.Pooling(32, mode, **options)]


def dense(**options: Any) -> Build:
    def build(backbone: nn.Module) -> list[nn.Module]:
        torch.manual_seed(1)
        projection = modules.Dense(32, 8, **options)
        return [backbone, modules.Pooling(32, "mean"), projection, modules.Normalize()]

    return build


def normed(backbone: nn.Module) -> list[nn.Module]:
    torch.manual_seed(2)
    norm = modules.LayerNorm(32)
    nn.init.normal_(norm.norm.weight)
    return [backbone, modules.Pooling(32, "cls"), modules.Dropout(0.5), norm]


MODELS: dict[str, Build] = {
    **{mode: pooled(mode) for mode in ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")},
    "two poolings": pooled(("mean", "max")),
    "dense": dense(),
    "dense without bias": dense(bias=False, activation_function=nn.Identity()),
    "residual": dense(use_residual=True),
    "layer norm": normed,
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
    return config.load(folder).encode(contents(TEXTS))


@pytest.mark.parametrize("runtime", ["torch", "onnx"])
@pytest.mark.parametrize("name", MODELS)
def test_vectors_are_those_of_the_library(name: str, runtime: str, model: Callable[..., Any], tmp_path: Path) -> None:
    expected = model(MODELS[name]).encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(encoded(tmp_path, runtime=runtime), expected, atol=1e-5)


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("name", [None, "document"])
def test_prompts_are_those_of_the_library(
    name: str | None, include: bool, model: Callable[..., Any], tmp_path: Path
) -> None:
    prompts = {"query": "very bad book . ", "document": "a film . "}
    made = model(pooled("mean", include_prompt=include), prompts=prompts, default_prompt_name="query")
    expected = made.encode(TEXTS, prompt_name=name, normalize_embeddings=True)
    np.testing.assert_allclose(encoded(tmp_path, prompt=name), expected, atol=1e-5)
    with pytest.raises(ConfigError, match=r"no prompt 'passage'.*Its prompts are 'document', 'query'"):
        encoded(tmp_path, prompt="passage")


def test_a_cut_vector_is_that_of_the_library(model: Callable[..., Any], tmp_path: Path) -> None:
    expected = model(pooled("mean")).encode(TEXTS, truncate_dim=5, normalize_embeddings=True)
    np.testing.assert_allclose(encoded(tmp_path, truncate_dim=5), expected, atol=1e-5)


def test_a_model_that_says_how_far_its_vectors_are_cut_needs_no_setting(
    model: Callable[..., Any], tmp_path: Path
) -> None:
    expected = model(pooled("mean"), truncate_dim=7).encode(TEXTS, normalize_embeddings=True)
    assert expected.shape[1] == 7
    np.testing.assert_allclose(encoded(tmp_path), expected, atol=1e-5)
    assert encoded(tmp_path, truncate_dim=5).shape[1] == 5


def test_a_backbone_below_the_folder_is_found(model: Callable[..., Any], tmp_path: Path) -> None:
    expected = model(pooled("cls")).encode(TEXTS, normalize_embeddings=True)
    folder, listed = tmp_path / "model", json.loads((tmp_path / "model" / "modules.json").read_text())
    (folder / "0_Transformer").mkdir()
    for file in [path for path in folder.iterdir() if path.is_file() and path.name not in ("modules.json",)]:
        shutil.move(file, folder / "0_Transformer" / file.name)
    (folder / "modules.json").write_text(json.dumps([{**listed[0], "path": "0_Transformer"}, *listed[1:]]))
    np.testing.assert_allclose(encoded(tmp_path), expected, atol=1e-5)
    assert np.abs(encoded(tmp_path, pooling="mean") - expected).max() > 1e-3


def test_a_module_of_another_package_is_refused_unless_the_pooling_is_said(model_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model_folder, tmp_path / "model")
    kinds = ["sentence_transformers.models.Transformer", "shutil.Error"]
    (copy / "modules.json").write_text(json.dumps([{"path": "", "type": kind} for kind in kinds]))
    with pytest.raises(ConfigError, match=r"the module shutil\.Error.*set pooling: mean"):
        encoded(tmp_path)
    plain = TextEncoder(TextEncoderConfig(model=str(model_folder), pooling="mean"), model_folder)
    np.testing.assert_array_equal(encoded(tmp_path, pooling="mean"), plain.encode(contents(TEXTS)))


def test_prompts_go_with_the_models_own_pooling() -> None:
    with pytest.raises(ValueError, match="goes with pooling: auto"):
        TextEncoderConfig(model="any", prompt="query", pooling="mean")
