"""Checkpoints that can be trusted: hashed, tied to one configuration, and read newest first.

They are written by us, not by Ray Train: it tries no upload again, may not have registered a checkpoint that is there,
and its own snapshot can be torn by a crash. A resumed run takes the newest checkpoint whose hash is right.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from kcm.errors import ArtefactError
from pipelines.store.files import Files, digest

STATE, MANIFEST = "state.pt", "manifest.json"


class DamagedCheckpointError(ArtefactError):
    """A checkpoint whose files are missing, torn or not what its manifest says."""


def checkpoint_name(attempt: str, steps: int) -> str:
    """The name of a checkpoint, which tells the steps taken even where its manifest is lost."""
    return f"checkpoint-{attempt}-{steps:09d}"


def write_checkpoint(files: Files, name: str, state: dict[str, Any], *, fingerprint: str, steps: int) -> None:
    """Write `state`, then a manifest that holds its hash, the run's fingerprint and the steps taken."""
    with tempfile.TemporaryDirectory(prefix="kcm-") as folder:
        draft = Path(folder) / STATE
        torch.save(state, draft)
        sha256 = digest(draft)
        files.put(f"{name}/{STATE}", draft, sha256)
    manifest = {"fingerprint": fingerprint, "steps": steps, "sha256": sha256}
    files.write(f"{name}/{MANIFEST}", json.dumps(manifest).encode())


def read_checkpoint(files: Files, name: str, *, fingerprint: str) -> dict[str, Any]:
    """The state of a checkpoint; ArtefactError when it is damaged or belongs to another configuration."""
    manifest, where = _manifest(files, name), f"{files.uri}/{name}"
    damaged = DamagedCheckpointError("a damaged checkpoint is passed over", where=where)
    if manifest is None:
        raise damaged
    try:
        with tempfile.TemporaryDirectory(prefix="kcm-") as folder:
            path = Path(folder) / STATE
            if files.get(f"{name}/{STATE}", path) != manifest["sha256"]:
                raise damaged
            if manifest["fingerprint"] != fingerprint:
                raise ArtefactError(
                    f"the checkpoint is of configuration {manifest['fingerprint']}, this run is {fingerprint}",
                    where=where,
                    hint="Give the run another storage_path, or remove the checkpoint",
                )
            state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        raise damaged from None
    return state


def newest_checkpoint(files: Files, *, fingerprint: str, say: Callable[[str], None]) -> dict[str, Any] | None:
    """The state with the most steps; damaged checkpoints are skipped, saying so."""
    for name in checkpoints(files):
        try:
            return read_checkpoint(files, name, fingerprint=fingerprint)
        except DamagedCheckpointError as error:
            say(str(error))
    return None


def checkpoints(files: Files) -> list[str]:
    """The names of the checkpoints, at any depth, the most steps first, damaged ones among them."""
    paths = (PurePosixPath(stat.name) for stat in files.list())
    found = {str(path.parent) for path in paths if path.name in (STATE, MANIFEST)}

    def steps(name: str) -> int:
        if manifest := _manifest(files, name):
            return int(manifest["steps"])
        named = re.search(r"-(\d+)$", name)
        return int(named[1]) if named else -1

    return sorted(found, key=lambda name: (steps(name), name), reverse=True)


def prune_checkpoints(files: Files, keep: int = 2) -> None:
    """Remove all but the newest `keep` sound checkpoints."""
    kept: list[str] = []
    for name in checkpoints(files):
        if len(kept) < keep and _is_sound(files, name):
            kept.append(name)
    remove_checkpoints(files, kept)


def remove_checkpoints(files: Files, kept: Collection[str] = ()) -> None:
    """Remove all checkpoints but those to be kept."""
    for name in checkpoints(files):
        if name not in kept:
            files.delete([stat.name for stat in files.list(name)])


def _is_sound(files: Files, name: str) -> bool:
    """Whether a checkpoint is whole: its state has the hash that its manifest says."""
    manifest = _manifest(files, name)
    try:
        return manifest is not None and files.sha256(f"{name}/{STATE}") == manifest["sha256"]
    except FileNotFoundError:
        return False


def _manifest(files: Files, name: str) -> dict[str, Any] | None:
    try:
        manifest = json.loads(files.read(f"{name}/{MANIFEST}"))
    except (OSError, ValueError):
        return None
    whole = isinstance(manifest, dict) and {"fingerprint", "steps", "sha256"} <= manifest.keys()
    return manifest if whole else None
