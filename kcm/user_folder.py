"""The user's name, and own folder, for data that must outlast a run and belongs to no storage."""

from __future__ import annotations

import getpass
import os
from pathlib import Path


def user_folder() -> Path:
    """`kcm` below XDG_DATA_HOME, by default ~/.local/share/kcm: paid answers, the ledger of looks, open draws."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share").absolute() / "kcm"


def user_name() -> str:
    """The name of this process's user, or the number of a user without an entry in the system's list, as in a pod."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
