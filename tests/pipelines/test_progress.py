from __future__ import annotations

import io

from rich.console import Console
from rich.progress import Progress

from pipelines.progress import Bar, Reporter


def test_a_bar_shows_what_is_done_and_takes_a_late_update_of_a_polling_thread() -> None:
    output = io.StringIO()
    with Reporter(Console(file=output, force_terminal=True, width=100)).bar("train", "steps") as bar:
        bar.update(3, 10)
    shown = output.getvalue()
    assert "train" in shown
    assert "3/10" in shown
    bar.update(4, 10)
    assert output.getvalue() == shown


def test_what_is_counted_anew_has_no_negative_rate() -> None:
    now, output = [0.0], io.StringIO()
    console = Console(file=output, force_terminal=False, width=100)
    bar = Bar(Progress(console=console, disable=True), console, "texts encoded", "texts", clock=lambda: now[0])
    for second, completed in ((0, 500), (5, 600), (10, 700), (21, 100)):
        now[0] = second
        bar.update(completed, 700)
    assert output.getvalue().splitlines() == ["texts encoded: 100 of 700 texts"]


def test_a_rate_is_of_the_last_half_minute_and_counts_neither_the_start_nor_what_was_there() -> None:
    now, output = [0.0], io.StringIO()
    console = Console(file=output, force_terminal=False, width=100)
    bar = Bar(Progress(console=console, disable=True), console, "features", "rows", clock=lambda: now[0])
    for second, completed in ((0, 50), (20, 50), (21, 60), (31, 160), (62, 1090), (72, 1190)):
        now[0] = second
        bar.update(completed, 2000)
    assert output.getvalue().splitlines() == [
        "features: 50 of 2,000 rows",
        "features: 160 of 2,000 rows 10 rows/s, about 0:03:04 left",
        "features: 1,090 of 2,000 rows 30 rows/s, about 0:00:30 left",
    ]
