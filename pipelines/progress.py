"""One progress bar per stage, with its rate and the time left; plain lines without a terminal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from kcm.inputs.visible import shown
from kcm.redact import redacted

_RECENT_S, _SPOKEN_EVERY_S, _POLLED_EVERY_S, _SILENT_S = 300.0, 10.0, 0.3, 5.0


class Bar:
    """The bar of one running stage.

    Its rate covers the last minutes and begins with the first finished unit: the start of workers and the work of
    earlier attempts do not count.
    """

    def __init__(
        self, progress: Progress, console: Console, name: str, unit: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._progress, self._console, self._name, self._unit, self._clock = progress, console, name, unit, clock
        self._number = progress.add_task(name, total=None, rate="")
        (self._task,) = progress.tasks
        self._spoken = clock()

    def update(self, completed: float, total: float) -> None:
        """Show `completed` of `total` units done."""
        if completed < self._task.completed:
            self._progress.reset(self._number)  # restart the count
        self._progress.update(self._number, completed=completed, total=total)
        rate, now = self._task.speed, self._clock()
        text = f"{rate:,.{0 if rate >= 10 else 1}f} {self._unit}/s" if rate else ""
        self._progress.update(self._number, rate=text)
        if not self._console.is_terminal and now - self._spoken > _SPOKEN_EVERY_S:
            self._spoken = now
            time_left = f", about {timedelta(seconds=round((total - completed) / rate))} left" if rate else ""
            self._console.print(
                f"{self._name}: {completed:,.0f} of {total:,.0f} {self._unit} {text}{time_left}".rstrip()
            )


class Reporter:
    """Output of the stages on the terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)

    @contextmanager
    def bar(self, name: str, unit: str) -> Iterator[Bar]:
        """A bar that lives as long as the stage; without a terminal, a line if the stage takes long."""
        columns = (
            TextColumn("[bold]{task.description:<9}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        progress = Progress(
            *columns,
            console=self.console,
            transient=True,
            speed_estimate_period=_RECENT_S,
            disable=not self.console.is_terminal,
        )
        begun = threading.Timer(_SILENT_S, self.say, (f"{name}: under way",))
        begun.daemon = True
        if not self.console.is_terminal:
            begun.start()
        try:
            with progress:
                yield Bar(progress, self.console, name, unit)
        finally:
            begun.cancel()

    def say(self, text: str) -> None:
        """Print one line, however long."""
        self.console.print(redacted(shown(text)), highlight=False, soft_wrap=True)


@contextmanager
def polled(bar: Bar, read_progress: Callable[[], tuple[float, float] | None]) -> Iterator[None]:
    """Update `bar` from `read_progress` (completed, total) in a thread, while the block waits for other processes."""
    stop = threading.Event()

    def poll() -> None:
        while not stop.wait(_POLLED_EVERY_S):
            if progress := read_progress():
                bar.update(*progress)

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
