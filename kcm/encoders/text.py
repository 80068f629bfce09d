"""Text encoders: any transformers model with a tokenizer, pooled to one unit vector per text.

Shapes: N texts, B texts of a batch, T tokens, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from transformers import AutoTokenizer

from kcm.assets import resolve
from kcm.encoders.backbone import DTYPES, load_backbone
from kcm.encoders.base import Encoder
from kcm.encoders.config import EncoderConfig
from kcm.encoders.identity import folder_digest
from kcm.errors import AssetError, ConfigError
from kcm.inputs.content import TEXT, Content, Part

# A tokenizer is either whole in tokenizer.json, or lies in the files of its slow form.
_SLOW_TOKENIZER = (
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
)


class TextEncoderConfig(EncoderConfig):
    """A frozen text model by hub id or folder, and how its token vectors become one vector."""

    reads: ClassVar[frozenset[Part]] = TEXT
    operational: ClassVar[frozenset[str]] = frozenset({"kind", "model", "batch_size"})  # decide nothing, or by identity

    model: str = Field(description="Id of the model on the hub, or a local folder.")
    pooling: Literal["mean", "cls"] = Field(
        default="mean", description="Mean of the token vectors, or the first of them."
    )
    max_length: int = Field(default=128, ge=3, description="Tokens beyond this number are cut off.")
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="Precision of the backbone.")

    @property
    def name(self) -> str:
        return self.model

    def load(self, assets_dir: Path, device: str = "cpu") -> Encoder:
        return TextEncoder(self, resolve(self.model, assets_dir), device)

    def identity(self, assets_dir: Path) -> str:
        return text_identity(self, resolve(self.model, assets_dir))


class TextEncoder:
    """A frozen text encoder on one device.

    `model_path` is the folder that `kcm.assets.resolve` gives for `config.model`. Raises AssetError when transformers
    cannot load the folder or it lacks weights, ConfigError when the model takes fewer tokens than `max_length`.
    """

    reads = TextEncoderConfig.reads

    def __init__(self, config: TextEncoderConfig, model_path: Path, device: str = "cpu") -> None:
        self.config, self.device = config, torch.device(device)
        self.identity = text_identity(config, model_path)
        self._tokenizer, model = _tokenizer(model_path), load_backbone(model_path)
        longest = self._tokenizer.model_max_length
        if config.max_length > longest:
            raise ConfigError(
                f"max_length = {config.max_length}, but {config.model!r} takes {longest} tokens",
                where="encoder.max_length",
            )
        # Cast after loading: the keyword for the dtype, and its default, differ between versions of transformers.
        self._model = model.to(device=self.device, dtype=DTYPES[config.dtype]).eval()
        self.dim = int(self._model.config.hidden_size)

    def read(self, content: Content) -> Content:
        """The content itself: there is nothing to decode."""
        return content

    @torch.inference_mode()
    def encode(self, inputs: Sequence[Content]) -> np.ndarray:
        """Unit vectors, float32 [N, D], in the order of the inputs; batches hold texts of like length."""
        features_ND = np.empty((len(inputs), self.dim), dtype=np.float32)
        if not len(inputs):
            return features_ND
        tokens = self._tokenizer(
            [content.text for content in inputs], truncation=True, max_length=self.config.max_length
        )
        by_length = np.argsort([-len(ids) for ids in tokens["input_ids"]], kind="stable")
        for start in range(0, len(by_length), self.config.batch_size):
            index = by_length[start : start + self.config.batch_size]
            batch = self._tokenizer.pad(
                {key: [column[i] for i in index] for key, column in tokens.items()}, return_tensors="pt"
            )
            features_ND[index] = self._forward(batch.to(self.device)).cpu().numpy()
        return features_ND

    def _forward(self, batch: dict[str, Tensor]) -> Tensor:
        hidden_BTD = self._model(**batch).last_hidden_state.float()
        pooled_BD = hidden_BTD[:, 0] if self.config.pooling == "cls" else _mean(hidden_BTD, batch["attention_mask"])
        return torch.nn.functional.normalize(pooled_BD, dim=-1)


def text_identity(config: TextEncoderConfig, model_path: Path) -> str:
    """Hexadecimal digest over weights, architecture, tokenizer, pooling, length and dtype.

    Raises AssetError when the folder lacks a config or weights as safetensors.
    """
    is_whole = (model_path / "tokenizer.json").is_file()
    files = ("tokenizer_config.json", *(("tokenizer.json",) if is_whole else _SLOW_TOKENIZER))
    settings = f"pooling {config.pooling}\nmax_length {config.max_length}\ndtype {config.dtype}\n"
    return folder_digest(model_path, files, settings)


def _tokenizer(model_path: Path) -> Any:
    try:
        return AutoTokenizer.from_pretrained(model_path, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise AssetError(f"cannot load the encoder: {' '.join(str(error).split())}", where=str(model_path)) from None


def _mean(hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    weights_BT1 = mask_BT[..., None].to(hidden_BTD.dtype)
    return (hidden_BTD * weights_BT1).sum(1) / weights_BT1.sum(1)
