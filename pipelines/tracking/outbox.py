"""Sends records to a server from a thread of its own, so that an outage never holds a run."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from tenacity import RetryCallState, Retrying, retry_if_exception, sleep_using_event, stop_when_event_set
from tenacity.wait import wait_base, wait_random_exponential

from kcm.redact import redacted


class Outbox:
    """Sends records in order; a record is the call that sends it.

    An error that `is_outage` accepts is retried and reported once; any other error drops the record and is reported.
    What has not arrived when the run ends is lost: a run that is started again finds its artefacts finished and records
    them anew, so a call must be idempotent. Only the curves of a training, which are in no artefact, stay missing.
    """

    def __init__(
        self,
        is_outage: Callable[[BaseException], bool],
        say: Callable[[str], None],
        *,
        where: str,
        pause: wait_base | None = None,
    ) -> None:
        self._say, self._where = say, where
        self._closed, self._in_outage = threading.Event(), False
        self._retrying = Retrying(
            retry=retry_if_exception(is_outage),
            wait=pause or wait_random_exponential(multiplier=1, max=30),
            sleep=sleep_using_event(self._closed),
            stop=stop_when_event_set(self._closed),
            before_sleep=self._report_outage,
            reraise=True,
        )
        self._unsent: queue.Queue[Callable[[], object] | None] = queue.Queue()  # None ends the thread
        # A daemon: the interpreter waits for any other thread, however long a server takes to fail.
        threading.Thread(target=self._deliver_all, name="outbox", daemon=True).start()

    def put(self, send: Callable[[], object]) -> None:
        """Queue a record and return."""
        self._unsent.put(send)

    def close(self, patience_s: float) -> None:
        """Wait up to `patience_s` for queued records; one line says how many have not arrived."""
        with self._unsent.all_tasks_done:
            self._unsent.all_tasks_done.wait_for(lambda: not self._unsent.unfinished_tasks, patience_s)
            num_unsent = self._unsent.unfinished_tasks
        self._closed.set()
        self._unsent.put(None)
        if num_unsent:
            self._say(
                f"{num_unsent} records have not reached {self._where}; start the run again once it answers, and they "
                "are sent then"
            )

    def _deliver_all(self) -> None:
        for send in iter(self._unsent.get, None):
            if not self._closed.is_set():
                self._deliver(send)
            self._unsent.task_done()

    def _deliver(self, send: Callable[[], object]) -> None:
        try:
            self._retrying(send)
        except Exception as error:  # whatever a server makes of a record must not keep the others
            if not self._closed.is_set():
                self._say(f"{self._where} refuses a record, which is left out: {_line(error)}")
        else:
            if self._in_outage:
                self._in_outage = False
                self._say(f"{self._where} answers again")

    def _report_outage(self, state: RetryCallState) -> None:
        if not self._in_outage and state.outcome:
            self._in_outage = True
            reason = _line(state.outcome.exception())
            self._say(f"{self._where} does not answer ({reason}); the run goes on, and its records are sent later")


def _line(error: BaseException | None) -> str:
    return redacted(f"{type(error).__name__}: {' '.join(str(error).split())}")[:300]
