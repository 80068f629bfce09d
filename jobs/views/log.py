"""How `kcm log stats` shows its result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.markup import escape

from jobs.views.table import line, plain_table

ROUTES = ("small", "large", "small_degraded")
MOST_SHOWN = 20


def stats_view(result: Mapping[str, Any]) -> Group:
    """A table of the versions, and lines about the rest."""
    table = plain_table(f"Decisions of {escape(result['application'])}")
    table.add_column("version", overflow="fold")
    for heading in (*ROUTES, "call\nrate %"):
        table.add_column(heading.replace("_", "\n"), justify="right", no_wrap=True)
    for version, routes in result["versions"].items():
        numbers = [routes.get(route, 0) for route in ROUTES]
        rate = 100 * (1 - numbers[0] / sum(numbers))
        table.add_row(escape(version), *(f"{number:,}" for number in numbers), f"{rate:.1f}")
    payloads = result["payloads"]
    lines = {
        "decisions": f"{result['decisions']:,}, {result['oldest'] or '-'} to {result['newest'] or '-'}",
        "numbers": f"up to {result['watermark']}; {result['missing']:,} decisions never came into the log",
        "audits": _states(result["audits"]),
        "labels": f"{result['labels']:,}",
        "inbox": _states(result["inbox"]),
        "payloads": f"{payloads['items']:,}, {payloads['bytes']:,} bytes, since {payloads['oldest'] or '-'}",
        "forgotten": f"{result['forgotten']:,}",
    }
    if new := result["new_labels"]:
        shown = ", ".join(f"{escape(label)} ({number:,})" for label, number in list(new.items())[:MOST_SHOWN])
        lines["new labels"] = f"{shown}; `update.more_labels` has them learned"
    return Group(table, *(line(name, value) for name, value in lines.items()))


def _states(states: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {state}" for state, number in states.items()) or "none"
