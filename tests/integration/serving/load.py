"""Load on a served cascade while something is done to it: callers that ask without a pause, and what they got."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx


class Ask(Protocol):
    """One request, the `number`-th of all; what it returns is kept. An `httpx.HTTPError` is a failure."""

    def __call__(self, client: httpx.Client, number: int, /) -> Any: ...


@dataclass
class Load:
    """Callers that ask one request after the other until they are stopped; caller k asks k, k + callers, and so on."""

    ask: Ask
    callers: int
    answered: list[Any] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self._ask_on, args=(start,)) for start in range(self.callers)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, number: int) -> None:
        """Return once this many further requests have ended."""
        goal = len(self.answered) + len(self.failed) + number
        deadline = time.monotonic() + 240
        while len(self.answered) + len(self.failed) < goal:
            assert time.monotonic() < deadline, "requests no longer end"
            time.sleep(0.02)

    def _ask_on(self, number: int) -> None:
        with httpx.Client(timeout=120) as client:
            while not self._stop.is_set():
                try:
                    self.answered.append(self.ask(client, number))
                except httpx.HTTPStatusError as error:
                    self.failed.append(f"{error.response.status_code} {error.response.text}")
                except httpx.HTTPError as error:
                    self.failed.append(repr(error))
                number += self.callers
