"""The commands of the loop: `kcm promote`, `update`, `versions`, `rollback` and `labels`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.options import Run
from kcm.errors import KcmError


def promote(
    config: Run,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="Number of a registered version, older or newer.")],
    approve: Annotated[
        bool,
        typer.Option("--approve", help="Only where it waits for approval, and by a canary where one serves."),
    ] = False,
) -> dict[str, Any]:
    """Make VERSION the champion, and let the running service change to it without a failed request."""
    from jobs.commands.loop import turns  # torch and Ray, once CONFIG could be read

    if approve:
        result = turns.approve(config, version)
        outcome = "is the champion" if result["promoted"] else f"is not promoted: {result['reason']}"
    else:
        result = turns.promote(config, version)
        outcome = f"is the champion{' and is served' if result['served'] else '; nothing is being served'}"
    typer.echo(f"{result['version']} {outcome}")
    return result


def update(
    config: Run,
    watch: Annotated[
        bool, typer.Option("--watch", help="Stay, and take a turn whenever something new or an alarm calls for one.")
    ] = False,
) -> dict[str, Any]:
    """Let the served cascade learn from its traffic, certify it again, and promote it; the last line is loop.json."""
    from jobs.commands.loop import turns
    from jobs.views.loop import turn_view
    from jobs.views.table import result_console

    if watch:
        turns.watch(config, lambda line: typer.echo(line, err=True))
        return {}
    result = turns.update(config)
    result_console().print(turn_view(result))
    typer.echo(result["result_path"])
    return result


def versions(config: Run) -> dict[str, Any]:
    """List the champion, earlier champions and challengers: lineage, promotion gates, windows of certificates."""
    from jobs.commands.loop import turns
    from jobs.views.loop import versions_view
    from jobs.views.table import result_console

    result = turns.versions(config)
    result_console().print(versions_view(result))
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
    from jobs.commands.loop import turns

    result = turns.rollback(config, version, reason)
    where = "and is served" if result["served"] else "again; nothing is being served"
    typer.echo(f"{result['rolled_back']} is rolled back: {result['version']} is the champion {where}")
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
    from jobs.commands.loop.label_items import labels_of, new_labels_of
    from jobs.views.loop import labels_view, new_labels_view
    from jobs.views.table import result_console

    if new or name or withdraw or ignore or same:
        if out or taken or check:
            raise KcmError("labels and groups go with neither --out, --in nor --check", hint="Give two commands")
        told = (each or () for each in (name, withdraw, ignore, same))
        result = new_labels_of(config, *told, groups=new)
        result_console().print(new_labels_view(result))
        return result
    result = labels_of(config, out=out, taken=taken, check=check, limit=limit)
    result_console().print(labels_view(result))
    return result
