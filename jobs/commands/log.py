"""`kcm log`: show, export and delete entries of a served cascade's log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.options import CommandGroup, Run
from kcm.errors import KcmError
from kcm.extras import load

app = CommandGroup("Show, export and delete entries of a served cascade's log.")


@app.add
def stats(config: Run) -> dict[str, Any]:
    """Count decisions, audits and labels; show signs of new classes.

    Decisions are counted by version and route, stored inputs in bytes.
    """
    return load("jobs.work.log:stats", "kcm log")(config)


@app.add
def export(
    config: Run,
    output: Annotated[Path, typer.Option(metavar="FILE", help="The file, which is replaced.")],
    audits: Annotated[
        bool,
        typer.Option("--audits", help="The items that the large model was asked about, as CSV for people to label."),
    ] = False,
    after: Annotated[int, typer.Option(min=0, metavar="NUMBER", help="Begin after this decision.")] = 0,
    upto: Annotated[
        int | None, typer.Option(min=0, metavar="NUMBER", help="End with this one; default: the last.")
    ] = None,
) -> dict[str, Any]:
    """Write the decisions as Parquet, with all outcomes so far.

    With --audits, a CSV file with a probability and an empty label for each item: fill the labels in and give the file
    to `kcm update --labels`.
    """
    return load("jobs.work.log:export", "kcm log")(config, output, after, upto, audits)


@app.add
def forget(
    config: Run,
    caller: Annotated[str | None, typer.Option(metavar="NAME", help="Forget all of this caller's items.")] = None,
    request: Annotated[
        str | None, typer.Option(metavar="ID[/ITEM]", help="Forget the items of a request, or one of them.")
    ] = None,
) -> dict[str, Any]:
    """Delete inputs, answers and labels permanently.

    Only a decision's route and probability stay. The next `kcm update` removes their units from the model's memory.
    """
    if (caller is None) == (request is None):
        raise KcmError("missing --caller or --request: the items to forget", hint="Give either --caller or --request")
    return load("jobs.work.log:forget", "kcm log")(config, caller, request)
