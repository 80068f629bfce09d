"""Sends records to a server from a thread of its own, so that an outage never holds a run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from tenacity import RetryCallState, Retrying, retry_if_exception, sleep_using_event, stop_when_event_set
from tenacity.wait import wait_base, wait_random_exponential

from kcm.redact import redacted

Record = dict[str, Any]


class Outbox:
    """Sends records in order.

    An error of `send` that `is_outage` accepts is retried and reported once; any other error drops the record and is
    reported. What has not arrived when the run ends is lost: a run that is started again finds its artefacts finished
    and records them anew, so `send` must be idempotent.
    """

    def __init__(
        self,
        send: Callable[[Record], None],
        is_outage: Callable[[BaseException], bool],
        say: Callable[[str], None],
        *,
        where: str,
        pause: wait_base | None = None,
    ) -> None:
        self._send, self._say, self._where = send, say, where
        self._closed, self._in_outage = threading.Event(), False
        self._retrying = Retrying(
            retry=retry_if_exception(is_outage),
            wait=pause or wait_random_exponential(multiplier=1, max=30),
            sleep=sleep_using_event(self._closed),
            stop=stop_when_event_set(self._closed),
            before_sleep=self._report_outage,
            reraise=True,
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outbox")
        self._unsent: set[Future[None]] = set()

    def put(self, record: Record) -> None:
        """Queue a record and return."""
        sending = self._thread.submit(self._deliver, record)
        self._unsent.add(sending)
        sending.add_done_callback(self._unsent.discard)

    def close(self, patience_s: float) -> None:
        """Wait up to `patience_s` for queued records; one line says how many have not arrived."""
        unsent = wait(set(self._unsent), patience_s).not_done
        self._closed.set()
        self._thread.shutdown(wait=False, cancel_futures=True)
        if unsent:
            self._say(
                f"{len(unsent)} records have not reached {self._where}; start the run again once it answers, and they "
                "are sent then"
            )

    def _deliver(self, record: Record) -> None:
        try:
            self._retrying(self._send, record)
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
