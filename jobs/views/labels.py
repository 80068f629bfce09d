"""The output of `kcm labels`: what the labels so far certify, and the items that wait for one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import typer
from rich.console import Group
from rich.markup import escape

from jobs.views.table import line, percent, plain_table
from pipelines.serve.log.inbox import InboxItem

Numbers = Mapping[str, Any]
SKIP, STOP = "s", "q"  # keys that are no labels' numbers


def labels_view(result: Numbers) -> Group:
    """The standing and the open items."""
    standing = result["standing"]
    counted = f"{standing['num_labelled']} labelled, {standing['num_skipped']} skipped, {standing['num_open']} open"
    at_most, epsilon = (percent(standing[name], ".2f") for name in ("bound", "epsilon"))
    verdict = (
        f"certified: {result['version']} loses at most {at_most} points; start `kcm update`"
        if standing["certified"]
        else f"not yet: {result['version']} loses at most {at_most} points, {epsilon} are allowed"
        if standing["num_open"]
        else f"certified where it keeps less: {at_most} points may be lost as searched; start `kcm update`"
        if standing["stricter"]
        else f"not certified: it may lose {at_most} points, {epsilon} are allowed; another challenger may do better"
    )
    lines = [line("labels", counted), line("standing", verdict)]
    if result["exported"] is not None:
        lines.append(line("exported", f"{result['exported']} items"))
    if not result["items"] or standing["certified"]:
        return Group(*lines)
    table = plain_table("Open items, the most useful first")
    for heading in ("id", "task", "input"):
        table.add_column(heading, overflow="fold")
    for each in result["items"]:
        shown = each["text"] or ("a picture" if each["has_image"] else "nothing is stored of it")
        table.add_row(escape(each["id"]), escape(each["task"] or "–"), escape(shown))
    return Group(table, *lines, line("known", ", ".join(result["labels"])))


def ask(item: InboxItem, labels: Sequence[str]) -> str:
    """Ask a person about one item on the terminal."""
    typer.echo(f"\n{item.id}" + (f" ({item.task})" if item.task else ""))
    typer.echo(item.text or "(a picture or nothing is stored: see --export)")
    typer.echo("  ".join([*(f"{n} {label}" for n, label in enumerate(labels, 1)), f"{SKIP} skip", f"{STOP} stop"]))
    keys = {str(n) for n in range(1, len(labels) + 1)} | {SKIP, STOP}
    while (key := str(typer.prompt("label")).strip().lower()) not in keys:
        typer.echo("That is none of the keys.")
    return key
