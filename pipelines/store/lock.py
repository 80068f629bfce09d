"""One writer at a time: a file lock that can say who holds it."""

from __future__ import annotations

import getpass
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from kcm.errors import LockedError
from kcm.redact import redacted


@contextmanager
def locked(path: Path, what: str, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock of `path` (the file `path`.lock beside it); LockedError naming the holder after `wait_s`.

    The operating system releases the lock when its holder dies, however it dies.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock_file, holder_file = path.with_name(path.name + ".lock"), path.with_name(path.name + ".holder.json")
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=wait_s)
    except Timeout:
        raise LockedError(
            f"{what} is being written by {_holder(holder_file)}",
            where=str(path),
            mend="Wait for it to end, or stop that process",
        ) from None
    try:
        holder_file.write_text(json.dumps(_me()), encoding="utf-8")
        yield
    finally:
        holder_file.unlink(missing_ok=True)
        lock.release()


def _me() -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "user": getpass.getuser(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": redacted(" ".join(sys.argv)),
    }


def _holder(holder_file: Path, attempts: int = 10) -> str:
    """Who wrote the holder file; it appears a moment after the lock is taken."""
    for _ in range(attempts):
        try:
            holder = json.loads(holder_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            time.sleep(0.05)
            continue
        return f"process {holder['pid']} of {holder['user']} on {holder['host']} since {holder['since']}"
    return "an unknown process"
