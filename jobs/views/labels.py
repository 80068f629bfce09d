"""The output of `kcm labels`: what the labels so far certify, and the items that wait for one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.markup import escape

from jobs.views.table import line, percent, plain_table

Numbers = Mapping[str, Any]


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
    if result["written"] is not None:
        lines.append(line("written", f"{result['written']} items"))
    if not result["items"] or standing["certified"]:
        return Group(*lines)
    table = plain_table("Open items, the most useful first")
    for heading in ("id", "task", "input"):
        table.add_column(heading, overflow="fold")
    for item in result["items"]:
        shown = item["text"] or ("a picture" if item["has_image"] else "nothing is stored of it")
        table.add_row(escape(item["id"]), escape(item["task"] or "–"), escape(shown))
    return Group(table, *lines, line("known", ", ".join(result["labels"])))
