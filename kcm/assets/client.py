"""Package clients, run as commands of their own: one that is missing, fails or hangs is told in one line."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from kcm.assets.digest import sha256_of
from kcm.errors import AssetError

# What pip, apt-get and npm begin a fault with; npm spells out codes before it says what they mean.
_FAULT = re.compile(r"^(?:ERROR: |E: |npm error (?!code |syscall |errno ))(.*)", re.MULTILINE)


def run_client(command: Sequence[str], *, client: str, where: str, timeout: float, folder: Path | None = None) -> None:
    """Run the command in `folder`.

    Raises AssetError naming the client: with what it says when it fails, when it is not installed, or when it takes
    longer than `timeout` seconds.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, cwd=folder)
    except FileNotFoundError:
        raise AssetError(f"{client} is not installed on this machine", where=where) from None
    except subprocess.TimeoutExpired:
        raise AssetError(f"{client} took longer than {timeout:g} s", where=where) from None
    if done.returncode:
        raise AssetError(f"{client}: {fault(done.stderr) or f'exit status {done.returncode}'}", where=where)


def fault(stderr: str) -> str:
    """The first line that says what went wrong, else the last line of all."""
    if found := _FAULT.search(stderr):
        return found[1].strip()
    return next((line.strip() for line in reversed(stderr.splitlines()) if line.strip()), "")


def verified(folder: Path, sha256: str) -> Path | None:
    """The file of `folder` that has this hash, if there is one."""
    return next((path for path in sorted(folder.iterdir()) if sha256_of(path) == sha256), None)
