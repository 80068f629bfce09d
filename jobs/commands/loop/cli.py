"""The commands of the loop: `kcm promote`, `update`, `versions`, `rollback`, `approve` and `labels`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.exit import reported
from jobs.options import ConfigFile, Debug, JsonFile, Overrides, announce, load


def promote(
    config: ConfigFile,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="Number of a registered version, older or newer.")],
    overrides: Overrides = None,
    json: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Make VERSION the champion, and let the running service change to it without a failed request."""
    with reported(json, debug) as result:
        announce(f"looking for version {version} of {config}")
        from jobs.commands.loop.promotion import promote as promote_version

        result |= promote_version(load(config, overrides), version)
        where = "and is served" if result["served"] else "; nothing is being served"
        typer.echo(f"{result['version']} is the champion {where}".replace(" ;", ";"))


def update(
    config: ConfigFile,
    watch: Annotated[
        bool, typer.Option("--watch", help="Stay, and take a turn whenever something new or an alarm calls for one.")
    ] = False,
    overrides: Overrides = None,
    json: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Let the served cascade learn from its traffic, certify it again, and promote it; the last line is loop.json."""
    with reported(json, debug) as result:
        announce(f"looking for what the champion of {config} has not learned")
        from jobs.commands.loop import turns
        from jobs.views.loop import turn_view
        from jobs.views.table import result_console

        loaded = load(config, overrides)
        if watch:
            turns.watch(loaded, lambda line: typer.echo(line, err=True))
            return
        result |= turns.update(loaded)
        result_console().print(turn_view(result))
        typer.echo(result["result_path"])


def versions(config: ConfigFile, overrides: Overrides = None, json: JsonFile = None, debug: Debug = False) -> None:
    """List the champion, earlier champions and challengers: lineage, promotion gates, windows of certificates."""
    with reported(json, debug) as result:
        announce(f"reading the versions of {config}")
        from jobs.commands.loop.turns import versions as all_versions
        from jobs.views.loop import versions_view
        from jobs.views.table import result_console

        result |= all_versions(load(config, overrides))
        result_console().print(versions_view(result))


def rollback(
    config: ConfigFile,
    version: Annotated[
        str | None, typer.Argument(metavar="[VERSION]", help="Number of an earlier version; else the champion before.")
    ] = None,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Why, for the record of the version.")
    ] = "rolled back by hand",
    overrides: Overrides = None,
    json: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Go back to an earlier champion under load; today's is never promoted by itself again."""
    with reported(json, debug) as result:
        announce(f"looking for {f'version {version}' if version else 'the champion before'} of {config}")
        from jobs.commands.loop.promotion import rollback as roll_back

        result |= roll_back(load(config, overrides), version, reason)
        where = "and is served" if result["served"] else "again; nothing is being served"
        typer.echo(f"{result['rolled_back']} is rolled back: {result['version']} is the champion {where}")


def approve(
    config: ConfigFile,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="Number of a version that waits for approval.")],
    overrides: Overrides = None,
    json: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Promote a version that no promotion gate refused, and that waits for a person."""
    with reported(json, debug) as result:
        announce(f"looking for version {version} of {config}")
        from jobs.commands.loop.turns import approve as approve_version

        result |= approve_version(load(config, overrides), version)
        outcome = "is the champion" if result["promoted"] else f"is not promoted: {result['reason']}"
        typer.echo(f"{result['version']} {outcome}")


def labels(
    config: ConfigFile,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write all items, as .csv, .jsonl or .json (Label Studio)."),
    ] = None,
    taken: Annotated[Path | None, typer.Option("--in", metavar="FILE", help="Store the labels of such a file.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Open items that are listed.")] = 10,
    overrides: Overrides = None,
    json: JsonFile = None,
    debug: Debug = False,
) -> None:
    """List the few items worth a person's label, exchange them as a file, and say what the labels so far certify.

    They are disagreements of the last turn's challenger with the large model, drawn at random: with enough of them
    labelled, there or on the page of the service, `kcm update` may let it keep more.
    """
    with reported(json, debug) as result:
        announce(f"reading the items of {config}")
        from jobs.commands.loop.labels import labels as label_items
        from jobs.views.labels import labels_view
        from jobs.views.table import result_console

        result |= label_items(load(config, overrides), out=out, taken=taken, limit=limit)
        result_console().print(labels_view(result))
