from __future__ import annotations

import io

from rich.console import Console

from pipelines.progress import Reporter


def test_a_bar_shows_what_is_done_and_takes_a_late_update_of_a_polling_thread() -> None:
    output = io.StringIO()
    with Reporter(Console(file=output, force_terminal=True, width=100)).bar("train", "steps") as bar:
        bar.update(3, 10)
    shown = output.getvalue()
    assert "train" in shown
    assert "3/10" in shown
    bar.update(4, 10)
    assert output.getvalue() == shown
