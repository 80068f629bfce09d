"""The tables of the loop's commands: what a turn did, all versions, labels, and what the log holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from jobs.views.table import foreign, line, table, warning
from kcm.report.formats import MISSING, duration, exact_points, percent

Numbers = Mapping[str, Any]
ROUTES = ("small", "large", "small_degraded")
MOST_SHOWN = 20


def turn_view(result: Numbers) -> Group:
    """What became of a turn, and its promotion gates with their reasons."""
    return Group(*_turn(result))


def outcome(result: Numbers) -> str:
    """What became of a turn, in a line."""
    if not result["changed"]:
        return f"{result['reason']}; {result['champion']} stays the champion"
    version = result["version"]
    if version is None:
        return f"nothing is promoted: {result['reason']}"
    if result["promoted"]:
        return f"{version} is the champion: {result['reason']}"
    if result["awaits_approval"]:
        return f"{version} waits for `kcm promote --approve`: {result['reason']}"
    return f"{version} is not promoted: {result['reason']}"


def _turn(result: Numbers) -> Iterator[Table | Text]:
    yield line("outcome", outcome(result))
    if not result["changed"]:
        return
    if result.get("calls_saved_after") is not None:
        before, after = (percent(result[f"calls_saved_{when}"]) for when in ("before", "after"))
        yield line("calls saved", f"{before} before, {after} after, on held-out decisions of the window")
    yield line("labels", f"{result['labels']} from callers, {result.get('labels_of_file', 0)} from a file")
    if uncounted := result.get("labels_uncounted"):
        yield warning(f"{uncounted} labels ignored, beyond serve.feedback.max_share_per_caller of one caller")
    yield line("time", duration(result["seconds"]))
    gates = (
        {"gate": name.replace("_", " "), "verdict": gate["verdict"], "why": gate["reason"]}
        for name, gate in result["gates"].items()
    )
    yield table(f"\nPromotion gates of {result['version'] or 'the window'}", gates)


def versions_view(result: Numbers) -> Group:
    """All versions, the newest first, and the last rollback."""
    rows = [
        {
            "version": version["version"],
            "state": version["state"],
            "from": version["parent"] or MISSING,
            "decisions": f"{version['window'][0] + 1}–{version['window'][1]}" if version["window"] else MISSING,
            "gates": version["verdict"] or MISSING,
            "loss at most": _loss(version["certificate"]),
            "why": version["reason"] or "",
        }
        for version in result["versions"]
    ]
    champion = next((number for number, row in enumerate(rows) if row["state"] == "champion"), None)
    lines: list[Table | Text] = [line("champion", result["champion"])]
    if back := result["rolled_back"]:
        lines.append(warning(f"{back['version']} was rolled back at {back['at']}: {back['reason']}"))
    return Group(*lines, table("\nVersions, the newest first", rows, bold=champion))


def stats_view(result: Mapping[str, Any]) -> Group:
    """A table of the versions, and lines about the rest."""
    rows: Iterator[Mapping[str, str | Text]] = (
        {"version": version}
        | {route.replace("_", " "): f"{routes.get(route, 0):,}" for route in ROUTES}
        | {"call rate": percent(1 - routes.get("small", 0) / sum(routes.get(route, 0) for route in ROUTES))}
        for version, routes in result["versions"].items()
    )
    payloads, audits = result["payloads"], (f"{number:,} {state}" for state, number in result["audits"].items())
    lines: list[Table | Text] = [
        line("decisions", f"{result['decisions']:,}, {result['oldest'] or MISSING} to {result['newest'] or MISSING}"),
        line("numbers", f"up to {result['watermark']}"),
        line("audits", ", ".join(audits) or "none"),
        line("labels", f"{result['labels']:,}"),
        line("payloads", f"{payloads['items']:,}, {payloads['bytes']:,} bytes, since {payloads['oldest'] or MISSING}"),
        line("forgotten", f"{result['forgotten']:,}"),
    ]
    if missing := result["missing"]:
        lines.append(warning(f"{missing:,} decisions never came into the log"))
    for version, e_value in result["novelty"].items():
        if e_value > 1:
            lines.append(line("new classes", f"version {version}: evidence {e_value:,.1f}; an alarm needs 20"))
    if new := result["new_labels"]:
        names = ", ".join(f"{foreign(label)} ({number:,})" for label, number in list(new.items())[:MOST_SHOWN])
        lines.append(line("new labels", f"{names}; `kcm update --classes FILE` adds them"))
    return Group(table(f"Decisions of {result['application']}", rows), *lines)


def _loss(certificate: Numbers | None) -> str:
    return exact_points(certificate["bound"]) if certificate and certificate["valid"] else MISSING
