"""An outbox: records in a file, sent to a server by a thread that waits out outages.

Adding a record never waits for the server and never fails because of it.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tenacity import RetryCallState, Retrying, retry_if_exception, sleep_using_event, stop_when_event_set
from tenacity.wait import wait_base, wait_random_exponential

from kcm.redact import redacted

Record = dict[str, Any]


class Outbox:
    """Sends records in order.

    An error of `send` that `is_outage` accepts is retried and reported once; any other error drops the record
    and is reported. Unsent records of an earlier process are sent first. After a crash some are sent again: `send` must
    be idempotent.
    """

    def __init__(
        self,
        file: Path,
        send: Callable[[Record], None],
        is_outage: Callable[[BaseException], bool],
        say: Callable[[str], None],
        *,
        where: str,
        wait: wait_base | None = None,
    ) -> None:
        self._file, self._send, self._say, self._where = file, send, say, where
        self._closed, self._outage = threading.Event(), False
        self._retrying = Retrying(
            retry=retry_if_exception(is_outage),
            wait=wait or wait_random_exponential(multiplier=1, max=30),
            sleep=sleep_using_event(self._closed),
            stop=stop_when_event_set(self._closed),
            before_sleep=self._missed,
            reraise=True,
        )
        self._changed = threading.Condition()
        self._records = deque(_read(file))
        self._thread: threading.Thread | None = None
        if file.exists():  # without a torn line, to which the next one would be joined
            file.write_text("".join(json.dumps(record) + "\n" for record in self._records), encoding="utf-8")
        if self._records:
            self._start()

    def put(self, record: Record) -> None:
        """Store a record (plain data) and return."""
        line = json.dumps(record) + "\n"
        with self._changed:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as file:
                file.write(line)
            self._records.append(json.loads(line))
            self._changed.notify_all()
        self._start()

    def close(self, patience_s: float) -> None:
        """Wait up to `patience_s` for pending records; those left stay in the file, and one line says so."""
        deadline = time.monotonic() + patience_s
        with self._changed:
            while self._records and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            if self._records:
                self._say(
                    f"{len(self._records)} records have not reached {self._where}; they are kept in {self._file} and "
                    "sent when the run is started again"
                )
            self._closed.set()
            self._changed.notify_all()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._records and not self._closed.is_set():
                    self._changed.wait()
                if self._closed.is_set():
                    return
                record = self._records[0]
            try:
                self._retrying(self._send, record)
            except Exception as error:  # whatever a server makes of a record must not keep the others
                if self._closed.is_set():
                    return
                self._say(f"{self._where} refuses a record, which is left out: {_line(error)}")
            else:
                if self._outage:
                    self._outage = False
                    self._say(f"{self._where} answers again")
            with self._changed:
                if self._closed.is_set():
                    return  # the file is the next process's by now
                self._records.popleft()
                if not self._records:
                    self._file.unlink(missing_ok=True)
                self._changed.notify_all()

    def _missed(self, state: RetryCallState) -> None:
        if not self._outage and state.outcome:
            self._outage = True
            reason = _line(state.outcome.exception())
            self._say(f"{self._where} does not answer ({reason}); the run goes on, and its records are sent later")


def _read(file: Path) -> list[Record]:
    """The records of a file; the last line may be torn."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def _line(error: BaseException | None) -> str:
    return redacted(f"{type(error).__name__}: {' '.join(str(error).split())}")[:300]
