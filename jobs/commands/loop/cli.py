"""The commands of the loop: `kcm promote`, `update`, `versions`, `rollback` and `labels`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.commands.loop import turns
from jobs.options import Run
from jobs.views.loop import labels_view, new_labels_view, turn_view, versions_view
from jobs.views.table import result_console
from kcm.certification.labelled import noise_bound
from kcm.errors import KcmError
from pipelines.config import RunConfig
from pipelines.loop.gates.items_to_label import drawn_for
from pipelines.loop.gates.label_files import read_answers, write_items
from pipelines.loop.window.groups import known_labels, new_groups
from pipelines.loop.window.naming import ClassNames


def promote(
    config: Run,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="Number of a registered version, older or newer.")],
    approve: Annotated[
        bool,
        typer.Option("--approve", help="Only if it waits for approval; through a canary if a service runs."),
    ] = False,
) -> dict[str, Any]:
    """Make VERSION the champion; a running service changes to it without a failed request."""
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
    if watch:
        turns.watch(config, lambda line: typer.echo(line, err=True))
        return {}
    result = turns.update(config)
    result_console().print(turn_view(result))
    typer.echo(result["result_path"])
    return result


def versions(config: Run) -> dict[str, Any]:
    """List the champion, earlier champions and challengers: lineage, promotion gates, windows of certificates."""
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


def new_labels_of(
    config: RunConfig,
    name: Sequence[str] = (),
    withdraw: Sequence[str] = (),
    ignore: Sequence[str] = (),
    same: Sequence[str] = (),
    *,
    groups: bool = True,
) -> dict[str, Any]:
    """Name labels for new classes, map names to existing labels (`same`, NAME=LABEL), ignore groups, or withdraw any.

    Returns the resulting names, with groups that may be new classes if requested. Raises DataError, before anything is
    stored, if the log holds no features for grouping; ConfigError for an existing or unknown label, or a missing group.
    """
    names = ClassNames.of(config)
    pairs = [(group_name.strip(), label.strip()) for group_name, _, label in (pair.partition("=") for pair in same)]
    known_names = known_labels(config) if name or same else ()
    proposed = [*ignore, *(group_name for group_name, _ in pairs if group_name not in (*names.labels(), *known_names))]
    item_groups = new_groups(config) if groups or proposed else []
    for group in ignore:
        names.ignore(group, item_groups)
    for taken_back in withdraw:
        names.withdraw(taken_back)
    for label in name:
        names.name(label, known_names)
    for group_name, label in pairs:
        names.identify(group_name, label, known_names, item_groups)
    result: dict[str, Any] = {"named": list(names.labels()), "same": names.same(), "ignored": list(names.ignored())}
    if groups:
        shown_groups = names.without_ignored(item_groups)
        result["groups"] = [
            {key: value for key, value in asdict(group).items() if key not in ("centre", "items")}
            for group in shown_groups
        ]
    return result


def labels_of(
    config: RunConfig, *, out: Path | None = None, taken: Path | None = None, check: Path | None = None, limit: int = 10
) -> dict[str, Any]:
    """Store the labels of the file `taken`, write all items to the file `out`; returns what the labels certify.

    The file `check` holds other people's answers to some of the items. They bound how often labels are wrong and are
    not stored. Returns also the first `limit` open items. Raises DataError, and stores nothing, for labels that cannot
    be stored.
    """
    with drawn_for(config) as drawn_items:
        answers, check_answers = ({} if file is None else read_answers(file) for file in (taken, check))
        drawn_items.answer(answers)
        items = drawn_items.items()
        if out is not None:
            write_items(items, out)
        labels_by_id = {item.id: item.label for item in items if item.label is not None}
        pairs = [
            labels_by_id[name] != label
            for name, label in check_answers.items()
            if name in labels_by_id and label is not None
        ]
        noise = noise_bound(len(pairs), sum(pairs))
        open_items = [item for item in items if item.state == "drawn"]
        return {
            "version": drawn_items.plan.version,
            "labels": list(drawn_items.plan.labels),
            "stored": len(answers),
            "written": None if out is None else len(items),
            "checked": check and {"pairs": len(pairs), "differ": sum(pairs), "noise": noise},
            "standing": asdict(drawn_items.standing()),
            "items": [
                {"id": item.id, "task": item.task, "text": item.text, "has_image": item.image is not None}
                for item in open_items[:limit]
            ],
        }
