"""The manifest of a fetched asset, `asset.json` in its folder: the origin of its files, their sizes and hashes."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from kcm.errors import AssetError
from kcm.local_files import require_regular

MANIFEST = "asset.json"


def write_manifest(folder: Path, files: Sequence[str], facts: Mapping[str, object]) -> None:
    """Write `facts` with the sizes and SHA-256 of `files`, paths relative to `folder`."""
    manifest = {
        **facts,
        "bytes": {file: (folder / file).stat().st_size for file in files},
        "sha256": {file: sha256_of(folder / file) for file in files},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def make_once(
    folder: Path,
    is_made: Callable[[Path], bool],
    make: Callable[[Path], tuple[Iterable[str], Mapping[str, object]]],
    timeout: float = -1,
) -> Path:
    """The folder, created by one process if it is missing: `make` fills a draft and returns its files and facts.

    The folder appears atomically. Raises filelock's Timeout if another process is creating it for longer than `timeout`
    seconds, and OSError if it cannot be written.
    """
    if is_made(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock"), timeout=timeout):
        if not is_made(folder):
            draft = folder.with_name(f".{folder.name}.draft")
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir()
            try:
                files, facts = make(draft)
                write_manifest(draft, list(files), facts)
                shutil.rmtree(folder, ignore_errors=True)  # it is damaged
                draft.replace(folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    return folder


def read_manifest(folder: Path) -> dict[str, Any]:
    """The records of the last fetch; empty without a readable manifest."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def is_intact(folder: Path) -> bool:
    """Whether the folder has a manifest, and all files in it have their listed hashes.

    Hashes are cached within a process and shared with the identity of an encoder. Files with a wrong size are not
    hashed.
    """
    manifest = read_manifest(folder)
    stated, sizes = manifest.get("sha256"), manifest.get("bytes") or {}
    if not isinstance(stated, dict) or not stated or not isinstance(sizes, dict):
        return False
    try:
        if any((folder / file).stat().st_size != sizes.get(file, -1) for file in stated if sizes):
            return False
        return all(weights_sha256(folder / file) == sha256 for file, sha256 in stated.items())
    except (OSError, ValueError):  # a missing file, or an impossible file name
        return False


_DECIDING = (".safetensors", ".json", ".txt", ".model", ".jinja")  # weights, architecture, tokenizer, template


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content. Raises DataError for a pipe or a device."""
    require_regular(path)
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
    """Hexadecimal digest over all files of a model that may decide its output, and over the user's settings.

    The folder's name and its manifest are not included. Raises AssetError for a folder without
    config.json or safetensors.
    """
    files = sorted(file for file in model_path.rglob("*") if file.suffix in _DECIDING and file.name != MANIFEST)
    if not {".json", ".safetensors"} <= {file.suffix for file in files}:
        raise AssetError(
            "the folder holds no model with weights as *.safetensors",
            where=str(model_path),
            hint="It needs config.json and *.safetensors",
        )
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(model_path)} {weights_sha256(file)}\n".encode())
    digest.update(settings.encode())
    return digest.hexdigest()
