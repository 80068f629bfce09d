"""Locks with a time limit: one writer at a time, so no work is done twice; a second writer learns who holds the lock.

A lock saves work; it does not keep results right, because a process may sleep through its time limit. So a writer
publishes by create-if-absent or by compare-and-swap, see `records`.

A holder renews its lock from a thread. A process that wants the lock watches it with its own clock, so no two clocks
are compared: a lock that was not renewed for `TTL_S` is free; a lock that is renewed meanwhile is held.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from kcm.errors import ArtefactError, LockedError
from kcm.user_folder import user_name
from pipelines.store.records import Control

TTL_S = 15.0  # a holder that has not renewed its lock for this long counts as dead
RENEWALS = 5  # within a lock's time limit
_FREE = b""  # the value of a released lock; otherwise the value is the holder, for messages


class Lease:
    """A lock that this process holds and renews from a thread, until it is released or another process takes it."""

    def __init__(self, control: Control, key: str, version: int, holder: bytes) -> None:
        self._control, self._key, self._version, self._holder = control, key, version, holder
        self._stop, self._lost = threading.Event(), False
        self._thread = threading.Thread(target=self._renew, name=f"lock {key}", daemon=True)
        self._thread.start()

    @property
    def held(self) -> bool:
        """Whether no process has taken the lock; publishing must not depend on it."""
        return not self._lost

    def release(self) -> None:
        """Free the lock for the next process immediately."""
        self._stop.set()
        self._thread.join()
        if self.held:
            self._write(_FREE)

    def _renew(self) -> None:
        while self.held and not self._stop.wait(TTL_S / RENEWALS):
            try:
                self._write(self._holder)
                self._control.prune(self._key)
            except (
                OSError,
                ArtefactError,
            ):  # for example a full disk: the work itself will fail, and the next renewal may succeed
                continue

    def _write(self, value: bytes) -> None:
        self._lost = not self._control.swap(self._key, self._version, value)
        self._version += 1


@contextmanager
def leased(control: Control, key: str, subject: str, *, wait_s: float = 0.0) -> Iterator[Lease]:
    """Hold the lock of `key` while the block runs; LockedError naming the holder if it is not free within `wait_s`.

    A holder that may be dead is watched for up to `TTL_S` in any case.
    """
    since = datetime.now(UTC).isoformat(timespec="seconds")
    holder = f"process {os.getpid()} of {user_name()} on {socket.gethostname()} since {since}".encode()
    lease = _awaited(control, key, subject, wait_s, holder)
    try:
        yield lease
    finally:
        lease.release()


def _awaited(control: Control, key: str, subject: str, wait_s: float, holder: bytes) -> Lease:
    """The lock, once it is free and no other process is faster."""
    started = time.monotonic()
    while True:
        latest = control.get(key)
        other = holder_of(control, [key])
        if other is None:
            version = latest.version if latest else 0
            if control.swap(key, version, holder):
                return Lease(control, key, version + 1, holder)
        elif time.monotonic() - started >= wait_s:
            hint = "Wait for it to end, or stop that process"
            raise LockedError(f"{subject} is being written by {other[1]}", where=key, hint=hint)


def holder_of(control: Control, keys: Iterable[str]) -> tuple[str, str] | None:
    """The first key whose lock is renewed, and its holder; None once all are free or silent for `TTL_S`."""
    watched = {key: now for key in keys if (now := control.get(key)) and now.value != _FREE}
    started = time.monotonic()
    while watched:
        for key, before in list(watched.items()):
            now = control.get(key)
            if now and now.value != _FREE and now.version > before.version:
                return key, now.value.decode()
            if not now or now.value == _FREE or time.monotonic() - started > TTL_S:
                del watched[key]
        if watched:
            time.sleep(control.poll_s)
    return None


def refuse_while_held(control: Control, key: str, subject: str) -> None:
    """Raise LockedError while somebody holds the lock of `key`."""
    if holder := holder_of(control, [key]):
        raise LockedError(f"{subject} by {holder[1]}", where=key, hint="Wait for it to end")
