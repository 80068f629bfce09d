"""Leases: one writer at a time, so that no work is done twice; the error of a second one names the first.

A lease saves work, it is not what keeps results right: a process may sleep through its own lease. What a writer
publishes under a lease is therefore created if absent or swapped by version, see `records`. Every new
holder has a higher epoch; `Lease.held` tells a writer that it was replaced.

Clocks of nodes differ, so none is compared with another's: whoever wants the lease of a holder on another node watches
it, by its own clock, and takes it once it was not renewed for `TTL_S`. One that is renewed meanwhile is held.

A lease that could not be given back, since the storage did not take the record, is free to its own process at once.
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

from kcm.errors import ArtefactError, LockedError
from kcm.redact import redacted
from pipelines.store.control.records import Control, Versioned

TTL_S = 30.0  # a holder that has not renewed its lease for this long is taken for dead, on whatever node it ran
RENEWALS = 6  # within a lease's life
_held_here: set[tuple[str, str, int]] = set()  # place, key and epoch of the leases that this process holds
_holding = threading.Lock()  # no thread sees a record of this process before the lease is among them


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
    renewed: float  # seconds since 1970 by the holder's clock, for people to read
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
        """Whether the lease was given back, or its holder died on this node."""
        return self.released or (self.is_here and not self._lives_here())

    @property
    def is_here(self) -> bool:
        """Whether the holder is, or was, a process of this node."""
        return self.host == socket.gethostname()

    @property
    def is_mine(self) -> bool:
        """Whether the holder is, or was, this process."""
        return self.is_here and self.pid == os.getpid() and self._lives_here()

    def _lives_here(self) -> bool:
        try:
            return bool(abs(psutil.Process(self.pid).create_time() - self.started) < 1)
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
        _held_here.add(_place(control, key, record))
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
        _held_here.discard(_place(self._control, self._key, self._record))
        if not self._lost:
            self._write(replace(self._record, released=True))

    def _renew(self) -> None:
        while not self._stop.wait(TTL_S / RENEWALS):
            try:
                self._lost = not self._write(replace(self._record, renewed=time.time()))
            except (OSError, ArtefactError):  # a full disk, say: the work will tell, and the next renewal may pass
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
    """Hold the lease of `key` while the block runs; LockedError naming the holder where it is not free in `wait_s`.

    A holder on another node that may be dead is watched for up to `TTL_S` even so.
    """
    lease = _awaited(control, key, what, wait_s)
    try:
        yield lease
    finally:
        lease.release()


def refuse_while_held(control: Control, key: str, what: str) -> None:
    """Raise LockedError while somebody holds the lease of `key`."""
    for _, holder in held(control, key):
        raise LockedError(f"{what} by {holder}", where=key, hint="Wait for it to end")


def held(control: Control, above: str) -> list[tuple[str, str]]:
    """Keys below `above` whose leases are held, and their holders; those of other nodes are watched for `TTL_S`."""
    seen = {key: current for key in control.keys(above) if (current := control.get(key)) is not None}
    taken = {key: current for key, current in seen.items() if not _is_free(control, key, current)}
    if any(not _record(current).is_here for current in taken.values()):
        time.sleep(TTL_S)
        taken = {key: now for key in taken if (now := control.get(key)) is not None and not _is_free(control, key, now)}
    alive = (each for each in taken.items() if _record(each[1]).is_here or each[1].version != seen[each[0]].version)
    return [(key, _record(current).holder) for key, current in alive]


def _awaited(control: Control, key: str, what: str, wait_s: float) -> Lease:
    """The lease, as soon as it is free and nobody else is quicker."""
    started = silent_since = time.monotonic()
    seen: Versioned | None = None
    renewed = False
    while True:
        current, now = control.get(key), time.monotonic()
        if current is None or _is_free(control, key, current):
            if lease := _taken(control, key, current):
                return lease
            continue
        record = _record(current)
        if seen is None or current.version != seen.version:
            renewed, seen, silent_since = seen is not None, current, now
        elif not record.is_here and now - silent_since > TTL_S:
            if lease := _taken(control, key, current):
                return lease
            continue
        if (record.is_here or renewed) and now - started >= wait_s:
            raise LockedError(
                f"{what} is being written by {record.holder}",
                where=key,
                hint="Wait for it to end, or stop that process",
            )
        time.sleep(control.poll_s)


def _taken(control: Control, key: str, current: Versioned | None) -> Lease | None:
    """The lease, if its record is still the one that was read."""
    version, epoch = (current.version, _record(current).epoch) if current else (0, 0)
    record = Record.mine(epoch + 1)
    with _holding:
        return Lease(control, key, version + 1, record) if control.swap(key, version, _encoded(record)) else None


def _is_free(control: Control, key: str, current: Versioned) -> bool:
    """Whether a lease may be taken at once: its record is free, or of a lease that this process holds no more."""
    record = _record(current)
    with _holding:
        is_held_here = _place(control, key, record) in _held_here
    return record.is_free or (record.is_mine and not is_held_here)


def _place(control: Control, key: str, record: Record) -> tuple[str, str, int]:
    return control.uri, key, record.epoch


def _record(current: Versioned) -> Record:
    return Record(**json.loads(current.value))


def _encoded(record: Record) -> bytes:
    return json.dumps(asdict(record)).encode()
