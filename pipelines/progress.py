"""One progress bar per stage, with its rate and the time left; plain lines where there is no terminal."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from kcm.redact import redacted

_RECENT_S, _SPOKEN_EVERY_S = 30.0, 10.0


class Bar:
    """The bar of one running stage. Its rate is that of the last half minute, and begins with the first finished unit:
    neither what workers take to start nor what an earlier attempt has done is counted.
    """

    def __init__(
        self,
        progress: Progress,
        console: Console,
        name: str,
        unit: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._progress, self._console, self._name, self._unit, self._clock = progress, console, name, unit, clock
        self._task: TaskID = progress.add_task(name, total=None, rate="")
        self._spoken, self._before = clock(), math.inf
        self._recent: deque[tuple[float, float]] = deque()  # when, and how many were done then

    def update(self, completed: float, total: float) -> None:
        """Show `completed` of `total` units done."""
        now = self._clock()
        if completed < self._before:  # counted anew
            self._recent.clear()
        elif completed > self._before:
            self._recent.append((now, completed))
        self._before = completed
        while len(self._recent) > 2 and self._recent[0][0] < now - _RECENT_S:
            self._recent.popleft()
        rate = self._rate()
        text = f"{rate:,.{0 if rate >= 10 else 1}f} {self._unit}/s" if rate else ""
        self._progress.update(self._task, completed=completed, total=total, rate=text)
        if not self._console.is_terminal and now - self._spoken > _SPOKEN_EVERY_S:
            self._spoken = now
            left = f", about {timedelta(seconds=round((total - completed) / rate))} left" if rate else ""
            self._console.print(f"{self._name}: {completed:,.0f} of {total:,.0f} {self._unit} {text}{left}".rstrip())

    def _rate(self) -> float:
        """Units a second; 0 before two have told it."""
        if len(self._recent) < 2:
            return 0.0
        (since, at_first), (now, done) = self._recent[0], self._recent[-1]
        return (done - at_first) / (now - since) if now > since else 0.0


class Reporter:
    """Output of the stages on the terminal.

    `in_vain` is called before anything is paid for a cascade that could keep nothing, and may raise to end the run.
    """

    def __init__(self, console: Console | None = None, in_vain: Callable[[], None] = lambda: None) -> None:
        self.console, self.in_vain = console or Console(stderr=True), in_vain

    @contextmanager
    def bar(self, name: str, unit: str) -> Iterator[Bar]:
        """A bar that lives as long as the stage."""
        columns = (
            TextColumn("[bold]{task.description:<9}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as progress:
            yield Bar(progress, self.console, name, unit)

    def say(self, text: str) -> None:
        """Print one line, as long as it is."""
        self.console.print(redacted(text), highlight=False, soft_wrap=True)


@contextmanager
def polled(bar: Bar, read: Callable[[], tuple[float, float] | None], every_s: float = 0.3) -> Iterator[None]:
    """Update `bar` from `read` (completed, total) in a thread, while the block waits for other processes."""
    stop = threading.Event()

    def poll() -> None:
        while not stop.wait(every_s):
            if progress := read():
                bar.update(*progress)

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
