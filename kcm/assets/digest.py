"""SHA-256 of files, streamed, and of the folders of models."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from kcm.errors import AssetError

_DECIDING = (".safetensors", ".json", ".txt", ".model")  # weights, architecture, tokenizer, settings


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def weights_sha256(path: Path) -> str:
    """`sha256_of` for large files, cached until the file is written again."""
    state = path.stat()
    return _sha256_in(path, (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns))


@lru_cache(maxsize=256)
def _sha256_in(path: Path, _state: tuple[int, ...]) -> str:
    return sha256_of(path)


def folder_digest(model_path: Path, settings: str) -> str:
    """Hexadecimal digest over all files of a model that may decide its output, and the settings of who uses it.

    Neither the folder's name nor what `kcm assets` notes in it is part of it. Raises AssetError for a folder without a
    config or weights as safetensors.
    """
    files = sorted(file for file in model_path.rglob("*") if file.suffix in _DECIDING and file.name != "asset.json")
    kinds = {file.suffix for file in files}
    if not {".safetensors", ".json"} <= kinds:
        raise AssetError(
            "the folder holds no model", where=str(model_path), hint="It needs config.json and weights as *.safetensors"
        )
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(model_path)} {weights_sha256(file)}\n".encode())
    digest.update(settings.encode())
    return digest.hexdigest()
