"""Checkpoints with a verified content: one file each, whose name holds steps, configuration and hash.

kcm writes them itself, and Ray Train never sees them:

- `ray.train.report` is not durable when it returns: a checkpoint counts once Train's controller has polled it. After a
  kill the last one or two may be missing, so the storage has to be searched anyway.
- Train does not retry a failed upload, and a crash can tear the snapshot in which its controller names checkpoints.
- Train could only name the files (`report(..., checkpoint=Checkpoint(uri), checkpoint_upload_mode=NO_UPLOAD)`). It
  would hand a new worker one of them, but check neither its hash nor the configuration that it was trained with.

So workers report metrics alone, and a resumed run takes the newest checkpoint with a valid hash.

    checkpoints/000000080-1f2e3d4c-FINGERPRINT-SHA256.pt
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from kcm.assets.manifest import sha256_of
from kcm.errors import ArtefactError
from pipelines.store.files import Files

CHECKPOINTS = "checkpoints"
_NAME = re.compile(r"\d{9,}-\w+-(?P<fingerprint>\w+)-(?P<sha256>[0-9a-f]{64})\.pt")


def write_checkpoint(files: Files, attempt: str, state: dict[str, Any], *, fingerprint: str, steps: int) -> str:
    """Write `state` after a number of steps of a training with this fingerprint; returns the checkpoint's name."""
    with tempfile.TemporaryDirectory(prefix="kcm-") as folder:
        draft = Path(folder) / "state"
        torch.save(state, draft)
        sha256 = sha256_of(draft)
        name = f"{steps:09d}-{attempt}-{fingerprint}-{sha256}.pt"
        files.below(CHECKPOINTS).put(name, draft)
    return name


def newest_checkpoint(files: Files, *, fingerprint: str, say: Callable[[str], None]) -> dict[str, Any] | None:
    """The state with the most steps; damaged checkpoints are skipped with a warning.

    Raises ArtefactError for a checkpoint of another configuration.
    """
    for name in checkpoints(files):
        where, parts = f"{files.uri}/{CHECKPOINTS}/{name}", _NAME.fullmatch(name)
        assert parts is not None
        if parts["fingerprint"] != fingerprint:
            raise ArtefactError(
                f"the checkpoint has configuration {parts['fingerprint']}, this run has {fingerprint}",
                where=where,
                hint="Give the run another storage_path, or remove the checkpoint",
            )
        with tempfile.TemporaryDirectory(prefix="kcm-") as folder:
            path = Path(folder) / "state"
            try:
                sha256 = files.below(CHECKPOINTS).get(name, path)
            except FileNotFoundError:
                continue  # another process has removed it since it was listed
            if sha256 == parts["sha256"]:
                return torch.load(path, weights_only=True, map_location="cpu")
        say(f"warning: skipped a damaged checkpoint ({where})")
    return None


def checkpoints(files: Files) -> list[str]:
    """The names of the checkpoints, damaged ones included, most steps first."""
    names = (stat.name for stat in files.below(CHECKPOINTS).list())
    return sorted((name for name in names if _NAME.fullmatch(name)), reverse=True)
