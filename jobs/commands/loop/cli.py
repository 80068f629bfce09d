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
from pipelines.loop.gates.drawn import drawn_for
from pipelines.loop.gates.label_files import read_answers, write_items
from pipelines.loop.window.groups import known_labels, new_groups
from pipelines.loop.window.naming import ClassNames


def promote(
    config: Run,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="Number of a registered version, older or newer.")],
    approve: Annotated[
        bool,
        typer.Option("--approve", help="Only where it waits for approval, and by a canary where one serves."),
    ] = False,
) -> dict[str, Any]:
    """Make VERSION the champion, and let the running service change to it without a failed request."""
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
        str | None, typer.Argument(metavar="[VERSION]", help="Number of an earlier version; else the champion before.")
    ] = None,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Why, for the record of the version.")
    ] = "rolled back by hand",
) -> dict[str, Any]:
    """Go back to an earlier champion under load; today's is never promoted by itself again."""
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


def new_labels_of(
    config: RunConfig,
    name: Sequence[str] = (),
    withdraw: Sequence[str] = (),
    ignore: Sequence[str] = (),
    same: Sequence[str] = (),
    *,
    groups: bool = True,
) -> dict[str, Any]:
    """Name labels for new classes, say which are labels that exist (`same`, NAME=LABEL) and which groups are none, and
    take any of it back; what stands then.

    If asked for, with the groups that may be new classes. Raises DataError where the log holds no features to group by,
    before anything is stored; ConfigError for a label that exists or was not named, or a group that is not there.
    """
    names = ClassNames.of(config)
    pairs = [(given.strip(), label.strip()) for given, _, label in (pair.partition("=") for pair in same)]
    known = known_labels(config) if name or same else ()
    proposed = [*ignore, *(given for given, _ in pairs if given not in (*names.labels(), *known))]
    found = new_groups(config) if groups or proposed else []
    for group in ignore:
        names.ignore(group, found)
    for taken_back in withdraw:
        names.withdraw(taken_back)
    for label in name:
        names.name(label, known)
    for given, label in pairs:
        names.identify(given, label, known, found)
    result: dict[str, Any] = {"named": list(names.labels()), "same": names.same(), "ignored": list(names.ignored())}
    if groups:
        shown = names.without_ignored(found)
        result["groups"] = [
            {key: value for key, value in asdict(group).items() if key not in ("centre", "items")} for group in shown
        ]
    return result


def labels_of(
    config: RunConfig, *, out: Path | None = None, taken: Path | None = None, check: Path | None = None, limit: int = 10
) -> dict[str, Any]:
    """Store the labels of the file `taken`, write all items to the file `out`, and say what the labels so far certify.

    The file `check` holds other people's answers to some of the items, which bound how often labels are wrong; none of
    them is stored. Gives the first open items, `limit` at the most. Raises DataError for what cannot be stored; nothing
    is stored then.
    """
    with drawn_for(config) as drawn:
        answers, second = ({} if file is None else read_answers(file) for file in (taken, check))
        drawn.answer(answers)
        items = drawn.items()
        if out is not None:
            write_items(items, out)
        given = {item.id: item.label for item in items if item.label is not None}
        pairs = [given[name] != label for name, label in second.items() if name in given and label is not None]
        noise = noise_bound(len(pairs), sum(pairs))
        open_items = [item for item in items if item.state == "drawn"]
        return {
            "version": drawn.plan.version,
            "labels": list(drawn.plan.labels),
            "stored": len(answers),
            "written": None if out is None else len(items),
            "checked": check and {"pairs": len(pairs), "differ": sum(pairs), "noise": noise},
            "standing": asdict(drawn.standing()),
            "items": [
                {"id": item.id, "task": item.task, "text": item.text, "has_image": item.image is not None}
                for item in open_items[:limit]
            ],
        }
