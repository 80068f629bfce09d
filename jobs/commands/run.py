"""`kcm run`: all stages of a configuration, or the stages up to one."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from jobs.options import Run, is_asked
from kcm.errors import KcmError

STAGES = ("tasks", "features", "outcomes", "train", "tune", "evaluate", "register")  # stages of every run

Until = Annotated[
    str | None,
    typer.Option(metavar="STAGE", help="Stop after tasks, features, outcomes, train, tune, evaluate or register."),
]


def check_stage(until: str | None) -> None:
    """Raise KcmError for a stage that does not exist."""
    if until is not None and until not in STAGES:
        raise KcmError(f"unknown stage {until!r}", where="--until", hint="Known are " + ", ".join(STAGES))


def run(
    config: Run,
    until: Until = None,
    promote: Annotated[
        bool | None,
        typer.Option(
            "--promote/--no-promote",
            help="Whether the version becomes the champion. Default: only if it saves something and is not worse "
            "than the current one.",
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Continue even if everything would be escalated; a terminal asks.")
    ] = False,
) -> dict[str, Any]:
    """Run every stage of CONFIG, print the result table, and the path of result.json as the last line.

    Finished stages come from the storage. With --until, only stages up to that one run, and nothing is printed.
    """
    check_stage(until)
    from jobs.views.table import result_console, result_view
    from pipelines.progress import Reporter
    from pipelines.run import run as run_stages

    reporter = Reporter(in_vain=_ask_to_go_on) if is_asked() and not yes else Reporter()
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
