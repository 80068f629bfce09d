import io

import pytest
from rich.console import Console
from rich.progress import Progress

from pipelines.progress import Bar, Reporter
from tests.waiting import wait_until


def test_bar_shows_progress_and_accepts_a_late_update() -> None:
    """Promise: a bar shows what is done and takes a late update of a polling thread."""
    output = io.StringIO()
    with Reporter(Console(file=output, force_terminal=True, width=100)).bar("train", "steps") as bar:
        bar.update(3, 10)
    shown = output.getvalue()
    assert "train" in shown
    assert "3/10" in shown
    bar.update(4, 10)
    assert output.getvalue() == shown


def test_rate_ignores_start_up_and_earlier_work() -> None:
    """Promise: a rate counts neither the start nor what was there nor what was counted before."""
    now, output = [0.0], io.StringIO()
    console = Console(file=output, force_terminal=False, width=100)
    clock = lambda: now[0]  # noqa: E731
    progress = Progress(console=console, disable=True, get_time=clock, speed_estimate_period=300)
    bar = Bar(progress, console, "features", "rows", clock)
    for second, completed in ((1, 50), (20, 50), (31, 160), (42, 270), (53, 100), (64, 210)):
        now[0] = second
        bar.update(completed, 2000)
    assert output.getvalue().splitlines() == [
        "features: 50 of 2,000 rows",
        "features: 160 of 2,000 rows 3.7 rows/s, about 0:08:22 left",
        "features: 270 of 2,000 rows 5.4 rows/s, about 0:05:22 left",
        "features: 100 of 2,000 rows",
        "features: 210 of 2,000 rows 10 rows/s, about 0:02:59 left",
    ]


def test_a_long_stage_names_itself_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: no stage is silent for minutes; one that ends soon prints no line of its own."""
    monkeypatch.setattr("pipelines.progress._SILENT_S", 0.01)
    output = io.StringIO()
    with Reporter(Console(file=output, force_terminal=False)).bar("tune", "trials"):
        wait_until(lambda: output.getvalue() == "tune: under way\n")
    monkeypatch.setattr("pipelines.progress._SILENT_S", 60.0)
    with Reporter(Console(file=output, force_terminal=False)).bar("train", "steps"):
        pass
    assert "train" not in output.getvalue()
