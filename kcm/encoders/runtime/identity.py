"""The identity of a model's folder: a digest of all that decides its output, without loading the model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from kcm.assets.digest import weights_sha256
from kcm.errors import AssetError


def folder_digest(model_path: Path, files: Sequence[str], settings: str) -> str:
    """Hexadecimal digest over weights, architecture, those of `files` that exist, and the settings of the encoder.

    The folder's name is not part of it. Raises AssetError when the folder lacks a config or weights as safetensors.
    """
    weights = sorted(model_path.glob("*.safetensors"))
    if not weights or not (model_path / "config.json").is_file():
        raise AssetError(
            "the folder holds no model", where=str(model_path), hint="It needs config.json and weights as *.safetensors"
        )
    digest = hashlib.sha256()
    for file in [*weights, model_path / "config.json", *(model_path / name for name in files)]:
        if file.is_file():
            digest.update(f"{file.name} {weights_sha256(file)}\n".encode())
    digest.update(settings.encode())
    return digest.hexdigest()
