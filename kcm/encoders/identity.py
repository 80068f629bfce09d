"""The identity of an encoder: a digest of everything that decides its output, taken without loading the model."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kcm.assets.digest import sha256_of
from kcm.encoders.base import EncoderConfig
from kcm.errors import AssetError

# A tokenizer is either whole in tokenizer.json, or lies in the files of its slow form.
_SLOW_TOKENIZER = (
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
)


def encoder_identity(config: EncoderConfig, model_path: Path) -> str:
    """Hexadecimal digest over weights, architecture, tokenizer, pooling, length and dtype.

    `model` and `batch_size` do not enter: a folder may be called anything. Raises AssetError when the folder lacks a
    config or weights as safetensors.
    """
    weights = sorted(model_path.glob("*.safetensors"))
    if not weights or not (model_path / "config.json").is_file():
        raise AssetError(
            "the folder holds no model", where=str(model_path), mend="It needs config.json and weights as *.safetensors"
        )
    tokenizer = [model_path / "tokenizer.json"]
    if not tokenizer[0].is_file():
        tokenizer = [model_path / name for name in _SLOW_TOKENIZER]
    files = [*weights, model_path / "config.json", model_path / "tokenizer_config.json", *tokenizer]
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            digest.update(f"{file.name} {sha256_of(file)}\n".encode())
    digest.update(f"pooling {config.pooling}\nmax_length {config.max_length}\ndtype {config.dtype}\n".encode())
    return digest.hexdigest()
