"""The manifest of a fetched asset, `asset.json` in its folder: where its files come from, their sizes and hashes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kcm.assets.digest import sha256_of, weights_sha256

MANIFEST = "asset.json"


def write_manifest(folder: Path, files: Sequence[str], facts: Mapping[str, object]) -> None:
    """Write `facts` with the sizes and SHA-256 of `files`, paths relative to `folder`."""
    manifest = {
        **facts,
        "bytes": {file: (folder / file).stat().st_size for file in files},
        "sha256": {file: sha256_of(folder / file) for file in files},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the last fetch recorded; empty without a readable manifest."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def is_intact(folder: Path) -> bool:
    """Whether the folder has a manifest, and every file that it lists has the hash that it states.

    Hashes are cached within a process and shared with the identity of an encoder.
    """
    stated = read_manifest(folder).get("sha256")
    if not isinstance(stated, dict) or not stated:
        return False
    try:
        return all(weights_sha256(folder / file) == sha256 for file, sha256 in stated.items())
    except (OSError, ValueError):  # a file that is not there, or a name that no file can have
        return False
