"""Text encoders: any transformers model with a tokenizer, pooled to one unit vector per text.

In ONNX Runtime neither transformers nor the weights are loaded. Shapes: N texts, B texts of a batch, T tokens, D
features.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from kcm.assets import resolve
from kcm.encoders.backbone import dtype_of, load_backbone
from kcm.encoders.base import Encoder
from kcm.encoders.config import NetworkConfig
from kcm.encoders.export import NETWORK, Exportable, exported
from kcm.encoders.identity import folder_digest
from kcm.encoders.network import Network, OnnxNetwork, TorchNetwork
from kcm.encoders.tokens import FastTokens, Tokenizer, runs, tokens_of
from kcm.errors import AssetError, ConfigError
from kcm.inputs.content import TEXT, Content, Part, contents

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

    reads: ClassVar[frozenset[Part]] = TEXT

    model: str = Field(description="Id of the model on the hub, or a local folder.")
    pooling: Literal["mean", "cls"] = Field(
        default="mean", description="Mean of the token vectors, or the first of them."
    )
    max_length: int = Field(default=128, ge=3, description="Tokens beyond this number are cut off.")

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
    when the model takes fewer tokens than `max_length`.
    """

    reads = TextEncoderConfig.reads

    def __init__(
        self, config: TextEncoderConfig, model_path: Path, device: str = "cpu", export: Path | None = None
    ) -> None:
        self.config = config
        self.identity = text_identity(config, model_path)
        self._tokens: Tokenizer
        self._network: Network
        if export is None:
            self._tokens, self._network = (
                _tokenizer(config, model_path),
                TorchNetwork(_module(config, model_path), device),
            )
        else:
            self._tokens = FastTokens.read((export / _TOKENIZER).read_text(encoding="utf-8"), config.max_length)
            self._network = OnnxNetwork(export / NETWORK)
        # A dynamic scale of int8 is that of all texts of a run: each has one of its own, or features depend on company.
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
        tokens = self._tokens.encode([content.text for content in inputs])
        for index in runs(np.array([len(ids) for ids, _ in tokens]), self._batch_size):
            features_ND[index] = self._network(self._tokens.batch([tokens[i] for i in index]))
        return features_ND


class _TextNetwork(nn.Module):
    """A backbone with its pooling: the unit vector of each text of a batch."""

    def __init__(self, backbone: nn.Module, pooling: str) -> None:
        super().__init__()
        self.backbone, self.pooling = backbone, pooling

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Unit vectors, float32 [B, D], from ids, mask and type ids [B, T]."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        output = self.backbone(input_ids=input_ids, attention_mask=attention_mask, **types)
        hidden_BTD = output.last_hidden_state.float()
        pooled_BD = hidden_BTD[:, 0] if self.pooling == "cls" else _mean(hidden_BTD, attention_mask)
        return torch.nn.functional.normalize(pooled_BD, dim=-1)


def _module(config: TextEncoderConfig, model_path: Path) -> nn.Module:
    # Cast after loading: the keyword for the dtype, and its default, differ between versions of transformers.
    return _TextNetwork(load_backbone(model_path).to(dtype_of(config.precision)), config.pooling)


def _exportable(config: TextEncoderConfig, model_path: Path) -> Exportable:
    """The network in float32 with its tokenizer. Raises AssetError for a tokenizer that Python alone can run."""
    tokens = _tokenizer(config, model_path)
    if not isinstance(tokens, FastTokens):
        raise AssetError("the model has no fast tokenizer", where=str(model_path), mend="Use runtime: torch")
    found = tokens.encode(_PROBES)
    probes = [tokens.batch(found), *(tokens.batch([each]) for each in (found[0], found[-1]))]
    axes = {name: {0: "batch", 1: "tokens"} for name in probes[0]}
    return Exportable(_module(config, model_path), probes, axes, {_TOKENIZER: tokens.text})


def text_identity(config: TextEncoderConfig, model_path: Path) -> str:
    """Hexadecimal digest over weights, architecture, tokenizer, pooling, length and precision.

    Raises AssetError when the folder lacks a config or weights as safetensors.
    """
    is_whole = (model_path / "tokenizer.json").is_file()
    files = ("tokenizer_config.json", *(("tokenizer.json",) if is_whole else _SLOW_TOKENIZER))
    settings = f"pooling {config.pooling}\nmax_length {config.max_length}\ndtype {config.precision}\n"
    return folder_digest(model_path, files, settings)


def _tokenizer(config: TextEncoderConfig, model_path: Path) -> Tokenizer:
    from transformers import AutoTokenizer  # an exported network does without

    try:
        tokenizer = AutoTokenizer.from_pretrained(model_path, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise AssetError(f"cannot load the encoder: {' '.join(str(error).split())}", where=str(model_path)) from None
    longest = tokenizer.model_max_length
    if config.max_length > longest:
        raise ConfigError(
            f"max_length = {config.max_length}, but {config.model!r} takes {longest} tokens",
            where="encoder.max_length",
        )
    return tokens_of(tokenizer, config.max_length)


def _mean(hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    weights_BT1 = mask_BT[..., None].to(hidden_BTD.dtype)
    return (hidden_BTD * weights_BT1).sum(1) / weights_BT1.sum(1)
