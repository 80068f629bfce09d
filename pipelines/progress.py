"""One progress bar per stage, with its rate and the time left; plain lines where there is no terminal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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


class Bar:
    """The bar of one running stage."""

    def __init__(self, progress: Progress, console: Console, name: str, unit: str) -> None:
        self._progress, self._console, self._name, self._unit = progress, console, name, unit
        self._task: TaskID = progress.add_task(name, total=None, rate="")
        self._started = self._spoken = time.monotonic()
        self._first: float | None = None

    def update(self, completed: float, total: float) -> None:
        """Show `completed` of `total` units done; the rate counts from the first update, without resumed work."""
        if self._first is None:
            self._first, self._started = completed, time.monotonic()
        elapsed = time.monotonic() - self._started
        rate = (completed - self._first) / elapsed if elapsed > 0.5 else 0.0
        text = f"{rate:,.0f} {self._unit}/s" if rate else ""
        self._progress.update(self._task, completed=completed, total=total, rate=text)
        if not self._console.is_terminal and time.monotonic() - self._spoken > 10:
            self._spoken = time.monotonic()
            self._console.print(f"{self._name}: {completed:,.0f} of {total:,.0f} {self._unit} {text}")


class Reporter:
    """Output of the stages on the terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)

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
