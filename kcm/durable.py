"""Moves of files and folders that survive a loss of power."""

from __future__ import annotations

import os
from pathlib import Path


def replace_durably(draft: Path, target: Path) -> None:
    """Move a file or folder to `target`, and flush it and its directory to disk before and after the rename.

    A rename alone survives the end of the process, not a loss of power. Raises OSError.
    """
    for path in [*draft.rglob("*"), draft]:
        _sync(path)
    draft.replace(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
