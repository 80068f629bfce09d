"""Text encoders: any transformers model with a tokenizer, one unit vector per text.

In ONNX Runtime neither torch, transformers nor the weights are loaded. Shapes: N texts, D features.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from kcm.assets import resolve
from kcm.encoders.base import Encoder
from kcm.encoders.config import NetworkConfig
from kcm.encoders.conventions import Conventions, backbone_folder, read_conventions
from kcm.encoders.runtime.export import NETWORK, Exportable, exported
from kcm.encoders.runtime.identity import folder_digest
from kcm.encoders.runtime.network import Network, OnnxNetwork, TorchNetwork
from kcm.encoders.tokens import FastTokens, Tokenizer, runs, tokens_of
from kcm.errors import AssetError
from kcm.inputs.content import TEXT, Content, Part, contents
from kcm.paths import LocalPath

if TYPE_CHECKING:  # an exported network needs no torch
    from kcm.encoders.text_network import TextNetwork

# A tokenizer is either whole in tokenizer.json, or lies in the files of its slow form.
_SLOW_TOKENIZER = (
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
)

_TOKENIZER = "tokenizer.json"  # in the folder of an export
# Of the lengths of sentences and short messages.
_PROBES = [
    "Good.",
    "The film was long, but I did not want it to end; the last scene alone is worth the evening.",
    "Does it come with a cable?",
    "I would like to move $250 from my savings to my checking account before the end of the month, please.",
    *(" ".join(["and then it was said that nothing had been decided"] * count) for count in (1, 2, 3, 5)),
    "¿Qué hora es? 3,14 — naïve café ☕ https://example.org/?q=1",
]


class TextEncoderConfig(NetworkConfig):
    """A frozen text model by hub id or folder, and how its token vectors become one vector."""

    added: ClassVar[frozenset[str]] = NetworkConfig.added | {"prompt", "truncate_dim"}
    reads: ClassVar[frozenset[Part]] = TEXT

    model: Annotated[str, LocalPath] = Field(description="Id of the model on the hub, or a local folder.")
    pooling: Literal["auto", "mean", "cls"] = Field(
        default="auto",
        description="auto: what the model's folder says, as sentence-transformers reads it (pooling, dense layers, "
        "prompts); or the mean of the token vectors, or the first of them, and nothing else.",
    )
    prompt: str | None = Field(
        default=None,
        description="Name of the model's prompt that is put before each text; null: its own default, mostly none.",
    )
    truncate_dim: int | None = Field(
        default=None,
        ge=1,
        description="Coordinates of the vector that are kept, the first ones; null: as the model says, mostly all.",
    )
    max_length: int = Field(
        default=128, ge=3, description="Tokens beyond this number, or beyond what the model takes, are cut off."
    )

    @model_validator(mode="after")
    def _prompts_are_conventions(self) -> Self:
        if self.prompt is not None and self.pooling != "auto":
            raise ValueError("prompt names one of the model's own, which goes with pooling: auto")
        return self

    @property
    def name(self) -> str:
        return self.model

    def load(self, assets_dir: Path, device: str = "cpu") -> Encoder:
        folder = resolve(self.model, assets_dir)
        if not self.is_exported(device):
            return TextEncoder(self, folder, device)
        identity = text_identity(self, folder)
        export = exported(identity, self.precision, assets_dir, lambda: _exportable(self, folder))
        return TextEncoder(self, folder, device, export)

    def identity(self, assets_dir: Path) -> str:
        return text_identity(self, resolve(self.model, assets_dir))

    def probes(self) -> Sequence[Content]:
        return contents(_PROBES)


class TextEncoder:
    """A frozen text encoder on one device.

    `model_path` is the folder that `kcm.assets.resolve` gives for `config.model`, `export` that of the exported
    network, None for torch. Raises AssetError when transformers cannot load the folder or it lacks weights, ConfigError
    for a prompt that the model does not have, or a module that is not known here.
    """

    reads = TextEncoderConfig.reads

    def __init__(
        self, config: TextEncoderConfig, model_path: Path, device: str = "cpu", export: Path | None = None
    ) -> None:
        self.config = config
        self.identity = text_identity(config, model_path)
        conventions = _conventions(config, model_path)
        self._prompt, self._lower_case = conventions.prompt(config.prompt), conventions.lower_case
        self._tokens: Tokenizer
        self._network: Network
        if export is None:
            self._tokens = _tokenizer(config, model_path)
            self._network = TorchNetwork(_module(config, model_path, self._tokens), device)
        else:
            self._tokens = FastTokens.read((export / _TOKENIZER).read_text(encoding="utf-8"), config.max_length)
            self._network = OnnxNetwork(export / NETWORK)
        # Dynamic int8 quantisation has one scale per call: with one text per call, features depend on no other text.
        self._batch_size = 1 if config.precision == "int8" else config.batch_size
        self.dim = self._network(self._tokens.batch(self._tokens.encode(["a text"]))).shape[1]

    def read(self, content: Content) -> Content:
        """The content itself: there is nothing to decode."""
        return content

    def encode(self, inputs: Sequence[Content]) -> np.ndarray:
        """Unit vectors, float32 [N, D], in the order of the inputs; batches hold texts of like length."""
        features_ND = np.empty((len(inputs), self.dim), dtype=np.float32)
        if not len(inputs):
            return features_ND
        tokens = self._tokens.encode([self._written(content.text) for content in inputs])
        for index in runs(np.array([len(ids) for ids, _ in tokens]), self._batch_size):
            features_ND[index] = self._network(self._tokens.batch([tokens[i] for i in index]))
        return features_ND

    def _written(self, text: str) -> str:
        text = self._prompt + text
        return text.lower() if self._lower_case else text


def _conventions(config: TextEncoderConfig, model_path: Path) -> Conventions:
    """What the configuration asks for: what the folder says, or a pooling and nothing else."""
    if config.pooling == "auto":
        found = read_conventions(model_path)
    else:
        found = Conventions(backbone_folder(model_path), (config.pooling,))
    return replace(found, truncate_dim=config.truncate_dim or found.truncate_dim)


def _module(config: TextEncoderConfig, model_path: Path, tokens: Tokenizer) -> TextNetwork:
    from kcm.encoders.text_network import build_text_network

    conventions = _conventions(config, model_path)
    prompt, num_skipped = conventions.prompt(config.prompt), 0
    if conventions.skip_prompt and prompt:
        (ids, _), (alone, _) = tokens.encode([prompt, ""])
        ends = len(alone) > 0 and ids[-1] == alone[-1]  # the tokenizer ends every text with this token
        num_skipped = len(ids) - ends
    return build_text_network(model_path, conventions, config.precision, num_skipped=num_skipped)


def _exportable(config: TextEncoderConfig, model_path: Path) -> Exportable:
    """The network in float32 with its tokenizer. Raises AssetError for a tokenizer that Python alone can run."""
    tokens = _tokenizer(config, model_path)
    if not isinstance(tokens, FastTokens):
        raise AssetError("the model has no fast tokenizer", where=str(model_path), hint="Use runtime: torch")
    found = tokens.encode(_PROBES)
    probes = [tokens.batch(found), *(tokens.batch([each]) for each in (found[0], found[-1]))]
    axes = {name: {0: "batch", 1: "tokens"} for name in probes[0]}
    return Exportable(_module(config, model_path, tokens), probes, axes, {_TOKENIZER: tokens.text})


def text_identity(config: TextEncoderConfig, model_path: Path) -> str:
    """Hexadecimal digest over weights, architecture, tokenizer, conventions, length and precision.

    Raises AssetError when the folder lacks a config or weights as safetensors, ConfigError for unknown conventions.
    """
    conventions = _conventions(config, model_path)
    folder = model_path / conventions.backbone
    is_whole = (folder / "tokenizer.json").is_file()
    files = ["tokenizer_config.json", *(("tokenizer.json",) if is_whole else _SLOW_TOKENIZER)]
    files += [os.path.relpath(model_path / each, folder) for each in conventions.files]
    settings = f"pooling {'+'.join(conventions.poolings)}\nmax_length {config.max_length}\ndtype {config.precision}\n"
    return folder_digest(folder, files, settings + _unusual(config, conventions))


def _unusual(config: TextEncoderConfig, conventions: Conventions) -> str:
    """What an identity says of conventions beyond the pooling; empty for those that have no effect on the vectors."""
    prompt = conventions.prompt(config.prompt)
    steps = [f"{step.kind} {step.config}" for step in conventions.steps]
    while steps and steps[-1].startswith("Normalize"):  # every encoder's vectors are normalised at the end
        steps.pop()
    facts = {
        "steps": steps,
        "prompt": prompt,
        "skips it": conventions.skip_prompt and bool(prompt),
        "lower case": conventions.lower_case,
        "truncate_dim": conventions.truncate_dim,
    }
    return "".join(f"{name} {value}\n" for name, value in facts.items() if value)


def _tokenizer(config: TextEncoderConfig, model_path: Path) -> Tokenizer:
    from transformers import AutoTokenizer  # an exported network needs no transformers

    folder = model_path / _conventions(config, model_path).backbone
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise AssetError(f"cannot load the encoder: {' '.join(str(error).split())}", where=str(folder)) from None
    return tokens_of(tokenizer, min(config.max_length, tokenizer.model_max_length))
