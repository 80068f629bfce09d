"""`kcm run`: all stages of a configuration, or the stages up to one."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import typer

from jobs.options import Run
from kcm.errors import ConfigError
from kcm.extras import load

StageName: TypeAlias = Literal["tasks", "features", "outcomes", "train", "tune", "evaluate", "register"]  # of every run

Until = Annotated[
    StageName | None,
    typer.Option(metavar="STAGE", help="Stop after tasks, features, outcomes, train, tune, evaluate or register."),
]


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
    append: Annotated[
        str | None,
        typer.Option(
            metavar="TABLE", help="Learn the rows of TABLE as the next task of the newest version's sequence."
        ),
    ] = None,
    parent: Annotated[
        str | None, typer.Option(metavar="VERSION", help="With --append: the version to continue, by number.")
    ] = None,
) -> dict[str, Any]:
    """Train, certify, measure and register a cascade.

    Every stage of CONFIG runs; the last line is the path of result.json. Finished stages come from the storage. With
    --until, only stages up to that one run, and nothing is printed. With --append, earlier tasks are not read again,
    and their answers are not paid for again.
    """
    if parent is not None and append is None:
        raise ConfigError(
            "--parent names the version that --append continues", where="--parent", hint="Add --append TABLE"
        )
    settings = {"promote": promote, "append": append, "parent": parent}
    return load("jobs.work.run:run", "kcm run")(config, until, **settings)
