"""Leases: one writer at a time, so that no work is done twice; a second one is told who the first is.

A lease saves work, it is not what keeps results right: clocks of nodes differ, and a process may sleep through its
own lease. What a writer publishes under a lease is therefore created if absent or swapped by version, see
`pipelines.store.control`. Every new holder has a higher epoch; `Lease.held` tells a writer that it was replaced.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

import psutil

from kcm.errors import LockedError
from kcm.redact import redacted
from pipelines.store.control import Control, Versioned

TTL_S = 30.0  # a holder that has not renewed its lease for this long is taken for dead, on whatever node it ran
RENEWALS = 6  # within a lease's life


@dataclass(frozen=True)
class Record:
    """What is written of a lease: who holds it, since when, until when, and for the how-many-th time."""

    epoch: int
    pid: int
    started: float  # of the process: its id may be another's by now
    user: str
    host: str
    command: str
    since: str
    renewed: float  # seconds since 1970
    released: bool = False

    @classmethod
    def mine(cls, epoch: int) -> Record:
        """The record of a lease that this process takes now."""
        return cls(
            epoch=epoch,
            pid=os.getpid(),
            started=psutil.Process().create_time(),
            user=getpass.getuser(),
            host=socket.gethostname(),
            command=redacted(" ".join(sys.argv)),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            renewed=time.time(),
        )

    @property
    def is_free(self) -> bool:
        """Whether the lease was given back, or its holder died or went silent."""
        if self.released:
            return True
        if self.host == socket.gethostname():
            return not self._lives_here()
        return time.time() - self.renewed > TTL_S

    def _lives_here(self) -> bool:
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started) < 1
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:  # another user's, so it is there
            return True

    @property
    def holder(self) -> str:
        """The holder, for messages."""
        return f"process {self.pid} of {self.user} on {self.host} since {self.since}"


class Lease:
    """A lease that this process holds and renews from a thread, until it is released or taken away."""

    def __init__(self, control: Control, key: str, version: int, record: Record) -> None:
        self._control, self._key, self._version, self._record = control, key, version, record
        self._stop = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._renew, name=f"lease {key}", daemon=True)
        self._thread.start()

    @property
    def epoch(self) -> int:
        """Counts the holders: a later one has a higher epoch."""
        return self._record.epoch

    @property
    def held(self) -> bool:
        """Whether nobody has taken the lease away; publishing must not rest on it."""
        return not self._lost

    def release(self) -> None:
        """Let the next one have it at once."""
        self._stop.set()
        self._thread.join()
        if not self._lost:
            self._write(replace(self._record, released=True))

    def _renew(self) -> None:
        while not self._stop.wait(TTL_S / RENEWALS):
            try:
                self._lost = not self._write(replace(self._record, renewed=time.time()))
            except OSError:  # a full disk, say: the work itself will tell, and the next renewal may pass
                continue
            if self._lost:
                return
            self._control.prune(self._key)

    def _write(self, record: Record) -> bool:
        if not self._control.swap(self._key, self._version, _encoded(record)):
            return False
        self._version, self._record = self._version + 1, record
        return True


@contextmanager
def leased(control: Control, key: str, what: str, *, wait_s: float = 0.0) -> Iterator[Lease]:
    """Hold the lease of `key` while the block runs; LockedError naming the holder where it is not free in `wait_s`."""
    deadline = time.monotonic() + wait_s
    while (lease := _taken(control, key)) is None:
        if time.monotonic() >= deadline:
            current = control.get(key)
            raise LockedError(
                f"{what} is being written by {_record(current).holder if current else 'another process'}",
                where=key,
                mend="Wait for it to end, or stop that process",
            )
        time.sleep(0.1)
    try:
        yield lease
    finally:
        lease.release()


def _taken(control: Control, key: str) -> Lease | None:
    """The lease, if it is free and nobody else was quicker."""
    current = control.get(key)
    if current is not None and not _record(current).is_free:
        return None
    record = Record.mine(epoch=1 + (_record(current).epoch if current else 0))
    version = current.version if current else 0
    return Lease(control, key, version + 1, record) if control.swap(key, version, _encoded(record)) else None


def _record(current: Versioned) -> Record:
    return Record(**json.loads(current.value))


def _encoded(record: Record) -> bytes:
    return json.dumps(asdict(record)).encode()
