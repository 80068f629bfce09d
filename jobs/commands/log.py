"""`kcm log`: what the log of a served cascade holds, the log as a file, and deletion from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.options import CommandGroup, Run
from kcm.errors import KcmError
from kcm.extras import load

app = CommandGroup("What the log of a served cascade holds, the log as a file, and deletion from it.")


@app.add
def stats(config: Run) -> dict[str, Any]:
    """Count decisions by version and route, audits, labels and bytes of inputs; show the evidence of drift."""
    result: dict[str, Any] = load("jobs.log_work:stats", "kcm log")(config)
    return result


@app.add
def export(
    config: Run,
    output: Annotated[Path, typer.Option(metavar="FILE", help="The Parquet file, which is replaced.")],
    after: Annotated[int, typer.Option(min=0, metavar="NUMBER", help="Begin behind this decision.")] = 0,
    upto: Annotated[
        int | None, typer.Option(min=0, metavar="NUMBER", help="End with this one; default: the last.")
    ] = None,
) -> dict[str, Any]:
    """Write the decisions as Parquet, a row for each, with all that is known of it by now."""
    result: dict[str, Any] = load("jobs.log_work:export", "kcm log")(config, output, after, upto)
    return result


@app.add
def forget(
    config: Run,
    caller: Annotated[str | None, typer.Option(metavar="NAME", help="Forget all of this caller's items.")] = None,
    request: Annotated[
        str | None, typer.Option(metavar="ID[/ITEM]", help="Forget the items of a request, or one of them.")
    ] = None,
) -> dict[str, Any]:
    """Delete inputs, answers and labels for good; what stays of a decision is its route and its probability.

    Their units leave the memory of the model with the next `kcm update`.
    """
    if (caller is None) == (request is None):
        raise KcmError("name whose items are to be forgotten", hint="Give either --caller or --request")
    result: dict[str, Any] = load("jobs.log_work:forget", "kcm log")(config, caller, request)
    return result


@app.add
def purge(config: Run) -> dict[str, Any]:
    """Remove what was forgotten from the artefacts of earlier versions, once the champion was trained without it.

    They can be served, but no update goes on from them.
    """
    result: dict[str, Any] = load("jobs.log_work:purge", "kcm log")(config)
    return result
