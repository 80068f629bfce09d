"""Paths given by a user must lead to regular files: a pipe or a device may block, or never end."""

from __future__ import annotations

import stat
from pathlib import Path

from kcm.errors import DataError


def require_regular(path: str | Path) -> None:
    """Raise DataError for a pipe, a socket or a device; missing files and folders are left to the caller."""
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kind = "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        raise DataError(f"{kind} is not read", where=str(path), hint="Save its content to a file, and give that")
