"""`kcm run`: all stages of a configuration, or the stages up to one."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from jobs.options import Run, is_asked
from kcm.errors import KcmError
from kcm.extras import load

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
    """Train, certify, measure and register a cascade.

    Every stage of CONFIG runs; the last line is the path of result.json. Finished stages come from the storage. With
    --until, only stages up to that one run, and nothing is printed.
    """
    check_stage(until)
    in_vain = is_asked() and not yes
    return load("jobs.work.run:run", "kcm run")(config, until, promote, asks=in_vain)
