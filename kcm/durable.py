"""Files that are there for good: after a loss of power, too."""

from __future__ import annotations

import os
from pathlib import Path


def replace_durably(draft: Path, target: Path) -> None:
    """Move a file, or a folder with all that it holds, to `target`, on disk before and after it appears there.

    A rename alone survives the end of the process; what it moves, and the folder that names it, are in memory until the
    system writes them. Raises OSError where that fails.
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
