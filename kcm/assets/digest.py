"""SHA-256 of files, streamed."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def weights_sha256(path: Path) -> str:
    """`sha256_of` for large files, cached until the file is written again."""
    state = path.stat()
    return _sha256_in(path, (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns))


@lru_cache(maxsize=256)
def _sha256_in(path: Path, _state: tuple[int, ...]) -> str:
    return sha256_of(path)
