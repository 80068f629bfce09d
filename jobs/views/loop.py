"""The tables of the loop's commands: what a turn did, all versions, labels, and what the log holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from jobs.views.table import foreign, line, percent, plain_table

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
    for heading in ("version", "state", "from", "decisions", "gates", "loss at\nmost %", "why"):
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
        if uncounted := result.get("labels_uncounted"):
            yield line("not counted", f"{uncounted} labels, beyond serve.feedback.max_share_per_caller of one caller")
        for caller, why in result.get("set_aside", {}).items():
            yield line("set aside", f"the labels of caller {caller[:12]}: {why}")
        yield line("seconds", f"{result['seconds']:.0f}")
    yield line("outcome", outcome(result))


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
    if checked := result["checked"]:
        said = f"{checked['differ']} of {checked['pairs']} second answers differ: `update.label_noise` is at most"
        lines.append(line("checked", f"{said} {checked['noise']:.3f}"))
    if not result["items"] or standing["certified"]:
        return Group(*lines)
    table = plain_table("Open items, the most useful first")
    for heading in ("id", "task", "input"):
        table.add_column(heading, overflow="fold")
    for item in result["items"]:
        shown = item["text"] or ("a picture" if item["has_image"] else "nothing is stored of it")
        table.add_row(*map(foreign, (item["id"], item["task"] or "–", shown)))
    return Group(table, *lines, line("known", ", ".join(result["labels"])))


def simulation_view(result: Numbers) -> Table:
    """The traffic before each turn of a simulated loop, and what the turn came to."""
    table = plain_table("The loop, played")
    for heading in (
        "wave",
        "answered by",
        "items",
        "calls\nsaved %",
        "right %",
        "new\nitems",
        "kept of\nthem %",
        "labels",
        "saved\nafter %",
    ):
        table.add_column(heading, justify="left" if heading == "answered by" else "right")
    table.add_column("the turn", overflow="fold")
    for period in result["periods"]:
        counts = [percent(part / period["items"]) for part in (period["kept"], period["right"])]
        late = percent(period["late_kept"] / period["late"]) if period["late"] else _NONE
        table.add_row(
            str(period["wave"] + 1),
            escape(period["version"]),
            str(period["items"]),
            *counts,
            str(period["late"]),
            late,
            str(period["labels"]),
            _NONE if period["saved_after"] is None else percent(period["saved_after"]),
            f"{'promoted' if period['promoted'] else 'not promoted'}: {escape(period['reason'])}",
        )
    return table


ROUTES = ("small", "large", "small_degraded")
MOST_SHOWN = 20


def new_labels_view(result: Numbers) -> Group:
    """The labels that were named and, where it was asked for them, the groups of items that may be new classes."""
    lines = [line("named", ", ".join(result["named"]) or "nothing: `--name LABEL` adds a label")]
    if result["same"]:
        lines.append(
            line("the same", ", ".join(f"{foreign(name)} is {label}" for name, label in result["same"].items()))
        )
    if result["ignored"]:
        lines.append(line("ignored", ", ".join(str(foreign(name)) for name in result["ignored"])))
    if "groups" not in result:
        return Group(*lines)
    if not result["groups"]:
        return Group(*lines, line("groups", "no ten escalated items lie together"))
    table = plain_table("Escalated items that lie together")
    for heading in ("items", "callers", "both sides agree", "the large model says", "such as", "proposed name"):
        table.add_column(heading, overflow="fold")
    for group in result["groups"]:
        answers = ", ".join(f"{label} {count}" for label, count in group["answers"].items())
        agreement, examples = percent(group["agreement"], ".0f"), "\n".join(group["examples"])
        table.add_row(
            str(group["size"]), str(group["callers"]), agreement, *map(foreign, (answers, examples, group["proposal"]))
        )
    return Group(table, *lines)


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
        "payloads": f"{payloads['items']:,}, {payloads['bytes']:,} bytes, since {payloads['oldest'] or '-'}",
        "forgotten": f"{result['forgotten']:,}",
    }
    for version, e_values in result["drift"].items():
        if e_values:
            lines["drift"] = f"version {escape(version)}: {_evidence(e_values)}; from 20 on it is told"
    if new := result["new_labels"]:
        shown = ", ".join(f"{foreign(label)} ({number:,})" for label, number in list(new.items())[:MOST_SHOWN])
        lines["new labels"] = f"{shown}; `kcm labels --name` has them learned"
    return Group(table, *(line(name, value) for name, value in lines.items()))


def _evidence(e_values: Mapping[str, float]) -> str:
    return ", ".join(f"{quantity} {value:,.1f}" for quantity, value in e_values.items())


def _states(states: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {state}" for state, number in states.items()) or "none"
