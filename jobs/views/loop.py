"""The tables of the loop's commands: what a turn did, and all versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from jobs.views.table import line, percent, plain_table

Numbers = Mapping[str, Any]
_NONE = "–"


def turn_view(result: Numbers) -> Group:
    """A turn's promotion gates, with their reasons, and what became of it."""
    return Group(*_turn(result))


def outcome(result: Numbers) -> str:
    """What became of a turn, in a line."""
    if not result["changed"]:
        return f"{result['reason']}; {result['champion']} stays the champion"
    version = result["version"] or "no version"
    if result["promoted"]:
        return f"{version} is the champion: {result['reason']}"
    if result["awaits_approval"]:
        return f"{version} waits for `kcm promote --approve`: {result['reason']}"
    return f"{version} is not promoted: {result['reason']}"


def versions_view(result: Numbers) -> Group:
    """All versions, the newest first, and the last rollback."""
    table = plain_table("Versions, the newest first")
    for heading in ("version", "state", "from", "decisions", "gates", "loss at\nmost %", "traffic\n%", "why"):
        table.add_column(heading, overflow="fold", justify="right" if heading.endswith("%") else "left")
    for version in result["versions"]:
        certificate = version["certificate"]
        table.add_row(
            escape(version["version"]),
            version["state"],
            escape(version["parent"] or _NONE),
            f"{version['window'][0] + 1}–{version['window'][1]}" if version["window"] else _NONE,
            version["verdict"] or _NONE,
            percent(certificate["bound"]) if certificate and certificate["valid"] else _NONE,
            _NONE if version["traffic"] is None else percent(version["traffic"]),
            escape(version["reason"] or ""),
            style="bold" if version["state"] == "champion" else None,
        )
    lines = [line("champion", result["champion"])]
    if back := result["rolled_back"]:
        lines.append(line("rolled back", f"{back['version']} at {back['at']}: {back['reason']}"))
    return Group(table, *lines)


def _turn(result: Numbers) -> Iterator[Table | Text]:
    if result["changed"]:
        table = plain_table(f"Promotion gates of {result['version'] or 'the window'}")
        for heading in ("gate", "verdict", "why"):
            table.add_column(heading, overflow="fold")
        for name, gate in result["gates"].items():
            table.add_row(name.replace("_", " "), gate["verdict"], escape(gate["reason"]))
        yield table
        if result.get("calls_saved_after") is not None:
            before, after = (percent(result[f"calls_saved_{when}"]) for when in ("before", "after"))
            yield line("calls saved", f"{before}% before, {after}% after, of what the window holds")
        yield line("labels", f"{result['labels']}, {result.get('labels_asked_for', 0)} of them on disagreements")
        yield line("seconds", f"{result['seconds']:.0f}")
    yield line("outcome", outcome(result))
