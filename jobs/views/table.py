"""The tables at the end of a run: the collaborators, per task and overall, and the paths of all files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from kcm.report.formats import interval, points_interval
from kcm.report.glossary import metric
from kcm.report.reading import OUTCOME_METRICS, collaborators, names_of, outcomes, sides, task_names
from kcm.report.words import (
    added_to_base,
    forecast,
    headline,
    large_faults,
    measured_rows,
    promise,
    taught_by_answers,
    why_deployed,
)

Numbers = Mapping[str, Any]

WIDTH = 100
MOST_CHARACTERS = 1000  # of a text that a caller sent
_NONE = "–"


def result_console() -> Console:
    """Standard output, wide enough for the tables also where it is a file or a pipe."""
    console = Console(highlight=False)
    return console if console.is_terminal and console.width >= WIDTH else Console(highlight=False, width=WIDTH)


def result_view(result: Numbers) -> Group:
    """The tables and lines of a finished run's result."""
    return Group(_cascade_table(result), _continual_table(result), *_lines(result))


def _cascade_table(result: Numbers) -> Table:
    """The rows of the report's own table, by `kcm.report.reading.outcomes`."""
    table = plain_table(f"Accuracy on {measured_rows(result)}, with 95% intervals (the difference is paired by row)")
    table.add_column("task\nrows", overflow="fold", min_width=12)
    table.add_column("\n", no_wrap=True)
    for key in OUTCOME_METRICS:
        table.add_column(metric(key).label.replace(" ", "\n"), justify="right", no_wrap=True)
    for number, (name, rows) in enumerate(outcomes(result)):
        for position, (who, row) in enumerate(rows.items()):
            first = "" if position else f"{escape(name)}\n{row['num_rows']:,} rows"
            cells = (_estimate(row, key) for key in OUTCOME_METRICS)
            table.add_row(first, names_of(result)[who], *cells, style=None if number else "bold")
        table.add_section()
    return table


def _estimate(row: Numbers, key: str) -> str:
    words, bounds = metric(key), row.get(f"{key}_interval")
    ends = points_interval(bounds) if key == "difference" else interval(bounds)
    return f"{words.show(row.get(key))}\n[dim]{ends}[/dim]" if bounds else words.show(row.get(key))


def _continual_table(result: Numbers) -> Table:
    table = plain_table("Continual learning" if len(task_names(result)) > 1 else "Size")
    table.add_column("measure", min_width=28)
    found = collaborators(result)
    for who in found:
        table.add_column(names_of(result)[who], justify="right", min_width=10)
    measures = next(iter(found.values()))["continual"] if len(task_names(result)) > 1 else ()  # else none is forgotten
    for measure in (name for name in measures if any(each["continual"][name] is not None for each in found.values())):
        words = metric(measure)
        table.add_row(words.label, *(words.show(each["continual"][measure]) for each in found.values()))
    table.add_row("Trainable parameters", *(f"{each['num_parameters']:,}" for each in found.values()))
    return table


def foreign(text: str) -> Text:
    """What a caller sent, for a terminal: no markup, nothing that moves its cursor, and the first characters alone."""
    shown = "".join(letter if letter.isprintable() or letter == "\n" else "�" for letter in text[:MOST_CHARACTERS])
    return Text(shown + (f" … ({len(text):,} characters)" if len(text) > MOST_CHARACTERS else ""))


def plain_table(title: str) -> Table:
    """An empty table in the style of all tables of the command line."""
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))


def _lines(result: Numbers) -> Iterator[Text]:
    yield line("result", headline(result))
    if advice := result.get("recommendation"):
        yield line("advice", advice)
    if why := why_deployed(result):
        yield line("deployed", why)
    if expected := forecast(result):
        yield line("forecast", expected)
    if added := added_to_base(result):
        yield line("base", added)
    if taught := taught_by_answers(result):
        yield line("no labels", taught)
    yield line("certificate", promise(result["certificate"]))
    for fault in large_faults(result):
        yield line("large model", fault)
    yield from _out_of_scope(result)
    yield from _unknown_classes(result)
    if mlflow := result.get("mlflow"):
        yield line("MLflow", f"run {mlflow['run_id']} at {mlflow['tracking_uri']}")
        yield line("registered", f"{mlflow['model']} version {mlflow['version']}{_champion(result)}")
    if result.get("bad_rows"):
        yield line("bad rows", f"{result['bad_rows']} left out, listed by id")
    if cached := [stage for stage, hit in result["cached"].items() if hit]:
        yield line("cached", ", ".join(cached))
    yield line("seconds", f"{sum(result['seconds'].values()):.0f}")
    if result.get("report"):
        yield line("report", str(result["report"]))


def _champion(result: Numbers) -> str:
    """What became of the version that was registered."""
    promotion = result.get("promotion") or {}
    if not (reason := promotion.get("reason")):
        return ", the champion" if promotion else ""
    stays = f"; version {promotion['champion']} stays the champion" if promotion["champion"] else ""
    return f", not promoted: {reason}{stays}; `kcm promote CONFIG {promotion['version']}` insists"


def _out_of_scope(result: Numbers) -> Iterator[Text]:
    """Metrics of the rows that have none of the labels, where there are such rows."""
    for who, found in sides(result, "out_of_scope").items():
        escalated, right = (percent(found[f"out_of_scope_{key}"]) for key in ("escalated", "accuracy"))
        rows = f"{found['out_of_scope_num_rows']:,} rows with none of the labels"
        yield line("no label", f"{names_of(result)[who]} escalates {escalated}% of {rows}; {right}% are answered so")


def _unknown_classes(result: Numbers) -> Iterator[Text]:
    """What would be kept of classes that nobody has named, where the learner can tell."""
    for who, found in sides(result, "unknown_classes").items():
        first, later = (percent(found[key]) for key in ("kept", "kept_once_noticed"))
        kept = f"{names_of(result)[who]} would keep {first}% of a class that it has never seen, {later}% once noticed"
        yield line("new classes", f"{kept}, by {found['num_rows']:,} rows without their own class")


def line(name: str, value: str) -> Text:
    return Text.assemble((f"{name:<12}", "bold"), value, overflow="fold")


def percent(value: float | None, form: str = ".1f") -> str:
    """A share in percent, or a dash where there is none."""
    return _NONE if value is None else f"{100 * value:{form}}"
