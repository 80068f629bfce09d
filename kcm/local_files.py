"""Files on this machine: atomic moves, new files, and which paths are read.

Only the functions that say so survive a power failure.
"""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from kcm.errors import ArtefactError, DataError


def require_writable(folder: Path, hint: str) -> None:
    """Raise ArtefactError with this hint if no file can be made in a folder, or where it would be created."""
    folder = folder.absolute()
    place = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise ArtefactError(f"cannot write here: {error.strerror}", where=str(folder), hint=hint) from None


@contextmanager
def drafted(target: Path) -> Iterator[Path]:
    """A hidden file next to `target` to write to; it replaces `target` if the block ends normally, and is then gone.

    A reader sees the old file or the new one, never half of it. A power failure may undo the replacement.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{uuid.uuid4().hex}")
    try:
        yield draft
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def replace_durably(draft: Path, target: Path) -> None:
    """Move a file or folder to `target`, and flush it and its directory to disk before and after the rename.

    A rename alone survives the end of the process, but not a power failure. Raises OSError.
    """
    for path in [*draft.rglob("*"), draft]:
        _sync(path)
    draft.replace(target)
    _sync(target.parent)


def create_durably(target: Path, content: bytes) -> bool:
    """Create a file with its content, on disk before this returns; False, without any change, if it exists.

    If several processes create the same file, one succeeds. Raises OSError if the file system has no hard links.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{uuid.uuid4().hex}")
    try:
        draft.write_bytes(content)
        _sync(draft)
        os.link(draft, target)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    _sync(target.parent)
    return True


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def require_regular(path: str | Path) -> None:
    """Raise DataError for a pipe, a socket or a device; missing files and folders are left to the caller."""
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kind = "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        raise DataError(f"{kind} is not read", where=str(path), hint="Save its content to a file, and give that")
