"""The commands of the loop: `kcm promote`, `update`, `versions`, `rollback` and `labels`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.options import Run
from kcm.errors import KcmError
from kcm.extras import load


def promote(
    config: Run,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="Number of a registered version, older or newer.")],
    approve: Annotated[
        bool,
        typer.Option("--approve", help="Only if it waits for approval."),
    ] = False,
) -> dict[str, Any]:
    """Make VERSION the champion, also of a running service.

    No request fails.
    """
    return load("jobs.work.loop:promote", "kcm promote")(config, version, approve)


def update(
    config: Run,
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep running, and take a turn on new traffic or an alarm.")
    ] = False,
) -> dict[str, Any]:
    """Train the served cascade on its traffic, and promote it.

    It is certified again first. The last line is the path of loop.json.
    """
    return load("jobs.work.loop:update", "kcm update")(config, watch)


def versions(config: Run) -> dict[str, Any]:
    """List the champion, earlier champions and challengers.

    With lineage, promotion gates and windows of certificates.
    """
    return load("jobs.work.loop:versions", "kcm versions")(config)


def rollback(
    config: Run,
    version: Annotated[
        str | None,
        typer.Argument(metavar="[VERSION]", help="Number of an earlier version. Default: the previous champion."),
    ] = None,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Reason, for the record of the version.")
    ] = "rolled back by hand",
) -> dict[str, Any]:
    """Go back to an earlier champion without downtime.

    The current champion is never promoted automatically again.
    """
    return load("jobs.work.loop:rollback", "kcm rollback")(config, version, reason)


def labels(
    config: Run,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write all drawn items, as .csv, .jsonl or .json (Label Studio)."),
    ] = None,
    taken: Annotated[Path | None, typer.Option("--in", metavar="FILE", help="Store the labels in such a file.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Number of open items to list.")] = 10,
    name: Annotated[
        list[str] | None, typer.Option("--name", metavar="LABEL", help="A new label; the next update learns it.")
    ] = None,
    withdraw: Annotated[
        list[str] | None,
        typer.Option("--withdraw", metavar="NAME", help="Withdraw such a label."),
    ] = None,
) -> dict[str, Any]:
    """List, export and import the items worth a person's label.

    Shows what the labels so far certify.
    The items are random disagreements of the last turn's challenger with the large model. With enough labels, `kcm
    update` may let the challenger keep more. --name adds a label for a class that came with the traffic, without a
    change of the configuration.
    """
    if not (name or withdraw):
        return load("jobs.work.labels:labels", "kcm labels")(config, out=out, taken=taken, limit=limit)
    if out or taken:
        raise KcmError("options of new labels cannot be combined with --out or --in", hint="Give two commands")
    return load("jobs.work.labels:new_labels", "kcm labels")(config, name or (), withdraw or ())
