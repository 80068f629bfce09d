"""Checkpoints that can be trusted: hashed, tied to one configuration, and read newest first.

Ray Train may not have registered a checkpoint that was already uploaded, and its own snapshot can be torn by a crash.
So a resumed run looks at the checkpoint folders themselves and takes the newest whose hash is right.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from kcm.errors import ArtefactError

STATE, MANIFEST = "state.pt", "manifest.json"


class DamagedCheckpointError(ArtefactError):
    """A checkpoint whose files are missing, torn or not what its manifest says."""


def checkpoint_name(attempt: str, steps: int) -> str:
    """The folder of a checkpoint, which tells the steps taken even where its manifest is lost."""
    return f"checkpoint-{attempt}-{steps:09d}"


def write_checkpoint(folder: Path, state: dict[str, Any], *, fingerprint: str, steps: int) -> None:
    """Write `state` with a manifest that holds its hash, the run's fingerprint and the steps taken."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / STATE)
    manifest = {"fingerprint": fingerprint, "steps": steps, "sha256": _digest(folder / STATE)}
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def read_checkpoint(folder: Path, *, fingerprint: str) -> dict[str, Any]:
    """The state in `folder`; ArtefactError when it is damaged or belongs to another configuration."""
    manifest = _manifest(folder)
    if manifest is None or not is_sound(folder):
        raise DamagedCheckpointError("a damaged checkpoint is passed over", where=str(folder))
    if manifest["fingerprint"] != fingerprint:
        raise ArtefactError(
            f"the checkpoint is of configuration {manifest['fingerprint']}, this run is {fingerprint}",
            where=str(folder),
            mend="Give the run another storage_path, or remove the checkpoint",
        )
    state: dict[str, Any] = torch.load(folder / STATE, weights_only=True, map_location="cpu")
    return state


def newest_checkpoint(root: Path, *, fingerprint: str, say: Callable[[str], None]) -> dict[str, Any] | None:
    """The state with the most steps below `root`; damaged checkpoints are skipped, saying so."""
    for folder in checkpoints(root):
        try:
            return read_checkpoint(folder, fingerprint=fingerprint)
        except DamagedCheckpointError as error:
            say(str(error))
    return None


def is_sound(folder: Path) -> bool:
    """Whether a checkpoint is whole: its state has the hash that its manifest says."""
    manifest = _manifest(folder)
    return manifest is not None and (folder / STATE).is_file() and _digest(folder / STATE) == manifest["sha256"]


def checkpoints(root: Path) -> list[Path]:
    """Checkpoint folders below `root`, the most steps first, damaged ones among them."""
    found = {path.parent for name in (STATE, MANIFEST) for path in root.rglob(name)}

    def steps(folder: Path) -> int:
        if manifest := _manifest(folder):
            return int(manifest["steps"])
        named = re.search(r"-(\d+)$", folder.name)
        return int(named[1]) if named else -1

    return sorted(found, key=lambda folder: (steps(folder), str(folder)), reverse=True)


def _manifest(folder: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(manifest, dict) and {"fingerprint", "steps", "sha256"} <= manifest.keys()
    return manifest if whole else None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
