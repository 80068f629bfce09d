"""What `kcm run` does."""

from __future__ import annotations

from typing import Any

import typer

from jobs.views.table import result_console, result_view
from pipelines.config import RunConfig
from pipelines.progress import Reporter
from pipelines.run import run as run_stages


def run(config: RunConfig, until: str | None, promote: bool | None, *, asks: bool) -> dict[str, Any]:
    """Run the stages, up to `until` if given, and print the table. `asks`: confirm a run that can certify nothing."""
    reporter = Reporter(in_vain=_ask_to_go_on) if asks else Reporter()
    result = run_stages(config, until=until, reporter=reporter, promote=promote)
    if until is None:
        result_console().print(result_view(result))
        typer.echo(result["result_path"])
    return result


def _ask_to_go_on() -> None:
    """Ask the warned user whether to continue; KeyboardInterrupt if not."""
    try:
        goes_on = typer.confirm("go on?", err=True)
    except typer.Abort:  # Ctrl-C or Ctrl-D
        goes_on = False
    if not goes_on:
        raise KeyboardInterrupt("stopped before anything was paid")
