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
        typer.Option("--approve", help="Only where it waits for approval, and by a canary where one serves."),
    ] = False,
) -> dict[str, Any]:
    """Make VERSION the champion, and let the running service change to it without a failed request."""
    result: dict[str, Any] = load("jobs.commands.loop.work:promote", "kcm promote")(config, version, approve)
    return result


def update(
    config: Run,
    watch: Annotated[
        bool, typer.Option("--watch", help="Stay, and take a turn whenever something new or an alarm calls for one.")
    ] = False,
) -> dict[str, Any]:
    """Let the served cascade learn from its traffic, certify it again, and promote it; the last line is loop.json."""
    result: dict[str, Any] = load("jobs.commands.loop.work:update", "kcm update")(config, watch)
    return result


def versions(config: Run) -> dict[str, Any]:
    """List the champion, earlier champions and challengers: lineage, promotion gates, windows of certificates."""
    result: dict[str, Any] = load("jobs.commands.loop.work:versions", "kcm versions")(config)
    return result


def rollback(
    config: Run,
    version: Annotated[
        str | None, typer.Argument(metavar="[VERSION]", help="Number of an earlier version; else the champion before.")
    ] = None,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Why, for the record of the version.")
    ] = "rolled back by hand",
) -> dict[str, Any]:
    """Go back to an earlier champion under load; today's is never promoted by itself again."""
    result: dict[str, Any] = load("jobs.commands.loop.work:rollback", "kcm rollback")(config, version, reason)
    return result


def labels(
    config: Run,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write all drawn items, as .csv, .jsonl or .json (Label Studio)."),
    ] = None,
    taken: Annotated[Path | None, typer.Option("--in", metavar="FILE", help="Store the labels of such a file.")] = None,
    check: Annotated[
        Path | None,
        typer.Option("--check", metavar="FILE", help="Second answers in such a file: how often is a label wrong?"),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Open items that are listed.")] = 10,
    new: Annotated[bool, typer.Option("--new", help="Show groups of escalated items that may be new classes.")] = False,
    name: Annotated[
        list[str] | None, typer.Option("--name", metavar="LABEL", help="A new label; the next update learns it.")
    ] = None,
    withdraw: Annotated[
        list[str] | None,
        typer.Option("--withdraw", metavar="NAME", help="Take such a label back, or show an ignored group again."),
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option("--ignore", metavar="NAME", help="Show no group like the one proposed as NAME.")
    ] = None,
    same: Annotated[
        list[str] | None,
        typer.Option("--is", metavar="NAME=LABEL", help="What is proposed, named or given as NAME is LABEL."),
    ] = None,
) -> dict[str, Any]:
    """List the few items worth a person's label, exchange them as a file, and say what the labels so far certify.

    They are disagreements of the last turn's challenger with the large model, drawn at random: with enough of them
    labelled, `kcm update` may let it keep more. With --new, groups of what was
    escalated since the last promotion; --name adds a label for such a class, without a change of the configuration,
    --is says that it is a label which exists, or merges two names, and --ignore that it is none.
    """

    if not (new or name or withdraw or ignore or same):
        drawn: dict[str, Any] = load("jobs.commands.loop.work:labels", "kcm labels")(
            config, out=out, taken=taken, check=check, limit=limit
        )
        return drawn
    if out or taken or check:
        raise KcmError("labels and groups go with neither --out, --in nor --check", hint="Give two commands")
    told = [each or () for each in (name, withdraw, ignore, same)]
    named: dict[str, Any] = load("jobs.commands.loop.work:new_labels", "kcm labels")(config, *told, groups=new)
    return named
