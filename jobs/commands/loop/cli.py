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
        typer.Option("--approve", help="Only if it waits for approval; through a canary if a service runs."),
    ] = False,
) -> dict[str, Any]:
    """Make VERSION the champion; a running service changes to it without a failed request."""
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
        bool, typer.Option("--watch", help="Keep running, and take a turn on new traffic or an alarm.")
    ] = False,
) -> dict[str, Any]:
    """Train the served cascade on its traffic, certify it again, and promote it; the last line is loop.json."""
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
        str | None,
        typer.Argument(metavar="[VERSION]", help="Number of an earlier version. Default: the previous champion."),
    ] = None,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Reason, for the record of the version.")
    ] = "rolled back by hand",
) -> dict[str, Any]:
    """Go back to an earlier champion without downtime; the current one is never promoted automatically again."""
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
    taken: Annotated[Path | None, typer.Option("--in", metavar="FILE", help="Store the labels in such a file.")] = None,
    check: Annotated[
        Path | None,
        typer.Option("--check", metavar="FILE", help="File with second answers: bounds how often a label is wrong."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Number of open items to list.")] = 10,
    new: Annotated[bool, typer.Option("--new", help="Show groups of escalated items that may be new classes.")] = False,
    name: Annotated[
        list[str] | None, typer.Option("--name", metavar="LABEL", help="A new label; the next update learns it.")
    ] = None,
    withdraw: Annotated[
        list[str] | None,
        typer.Option("--withdraw", metavar="NAME", help="Withdraw such a label, or show an ignored group again."),
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option("--ignore", metavar="NAME", help="Hide groups like the one proposed as NAME.")
    ] = None,
    same: Annotated[
        list[str] | None,
        typer.Option("--is", metavar="NAME=LABEL", help="The proposed or given NAME means LABEL."),
    ] = None,
) -> dict[str, Any]:
    """List the few items worth a person's label, export and import them, and show what the labels so far certify.

    The items are random disagreements of the last turn's challenger with the large model. With enough labels, `kcm
    update` may let the challenger keep more. --new shows groups of items escalated since the last promotion. --name
    adds a label for such a class without a change of the configuration; --is maps a group to an existing label, or
    merges two names; --ignore hides a group that is no class.
    """
    from jobs.commands.loop.label_items import labels_of, new_labels_of
    from jobs.views.loop import labels_view, new_labels_view
    from jobs.views.table import result_console

    if new or name or withdraw or ignore or same:
        if out or taken or check:
            raise KcmError(
                "options of new labels cannot be combined with --out, --in or --check", hint="Give two commands"
            )
        operations = (option or () for option in (name, withdraw, ignore, same))
        result = new_labels_of(config, *operations, groups=new)
        result_console().print(new_labels_view(result))
        return result
    result = labels_of(config, out=out, taken=taken, check=check, limit=limit)
    result_console().print(labels_view(result))
    return result
