"""What a run prints at its end: what happened, what it is worth, what to do next; then the deployed model's figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from kcm.inputs.visible import shown
from kcm.report.formats import (
    MISSING,
    duration,
    interval,
    known,
    metric,
    percent,
    points_interval,
    rounds_to_zero,
    unsigned_points,
)
from kcm.report.reading import alone, collaborators, deployed, named, outcomes, task_names
from kcm.report.summary import headline, measured, measured_rows, promise, warnings

Numbers = Mapping[str, Any]

WIDTH = 100
MOST_TASKS = 8  # in the terminal; the report has all, and more columns
METRICS = ("large_accuracy", "cascade_accuracy", "difference", "calls_saved", "cost_saved")
MOST_CHARACTERS = 1000  # of a text that a caller sent


def result_console() -> Console:
    """Standard output, wide enough for the tables, also if it is a file or a pipe."""
    console = Console(highlight=False)
    return console if console.is_terminal and console.width >= WIDTH else Console(highlight=False, width=WIDTH)


def result_view(result: Numbers) -> Group:
    """A finished run on one screen; its report has the rest."""
    return Group(
        *_summary(result), *learned_view(result), _outcomes(alone(result)), beside_view(result), *_outlook(result)
    )


def _summary(result: Numbers) -> Iterator[Table | Text]:
    yield line("result", headline(result))
    yield line("measured", measured(result))
    yield line("guarantee", f"{promise(result['certificate'])}.")
    if advice := result.get("recommendation"):
        yield line("next", advice)
    yield from map(warning, warnings(result))


def _outcomes(result: Numbers) -> Table:
    """The deployed model by task; with many tasks, only their total."""
    rows = [(name, side) for name, sides in outcomes(result) for side in sides.values()]
    shown = rows if len(rows) <= MOST_TASKS + 1 else rows[:1]
    cells = (
        {"task": _with_note(name, f"{side['num_rows']:,} rows")}
        | {metric(key).label: _estimate(side, key) for key in METRICS}
        for name, side in shown
    )
    return table(f"\nThe deployed model on {measured_rows(result)}, with 95% intervals", cells)


def _estimate(row: Numbers, key: str) -> Text:
    bounds = row.get(f"{key}_interval")
    ends = points_interval(bounds) if key == "difference" else interval(bounds)
    return _with_note(metric(key).show(row.get(key)), ends if bounds else "")


def _with_note(text: str, note: str) -> Text:
    return Text.assemble(text, (f"\n{note}" if note else "", "dim"))


def learned_view(result: Numbers) -> Iterator[Table | Text]:
    """The small model's accuracy on each task after each task, and what was forgotten; of many tasks the last ones."""
    matrix, names = deployed(result)[1].get("accuracy_matrix") or [], task_names(result)
    if len(matrix) < 2:
        return
    first = max(0, len(names) - MOST_TASKS)
    rows: list[dict[str, str | Text]] = []
    for row in range(first, len(names)):
        rows.append({"after": names[row]})
        rows[-1] |= {names[task]: percent(matrix[row][task]) for task in range(first, len(names))}
    yield table("\nThe small model's accuracy, task after task", rows, bold=len(rows) - 1)
    if known(forgotten := (deployed(result)[1].get("continual") or {}).get("forgetting_first")):
        yield line("forgotten", forgotten_words(forgotten))


def forgotten_words(loss: float) -> str:
    """The mean change of a task's accuracy since it was learned, in words."""
    if rounds_to_zero(100 * loss, 1):
        return "nothing, on average over the earlier tasks"
    if loss < 0:
        return f"nothing: the earlier tasks gained {unsigned_points(loss)} on average since each was learned"
    return f"{unsigned_points(loss)} lost, on average over the earlier tasks, since each was learned"


def beside_view(result: Numbers) -> Table:
    """All trained small models."""
    rows: list[dict[str, str | Text]] = []
    for who, side in collaborators(result).items():
        continual, overall = side.get("continual") or {}, side["overall"]
        rows.append(
            {
                "small model": named(result)[who],
                "average accuracy": percent(continual.get("average_accuracy")),
                "forgotten, points": metric("forgetting_first").show(continual.get("forgetting_first")),
                metric("calls_saved").label: percent(overall.get("calls_saved")),
                metric("cascade_accuracy").label: percent(overall.get("cascade_accuracy")),
            }
        )
    return table("\nAll small models on the same rows, each under its own certificate", rows, bold=0)


def _outlook(result: Numbers) -> Iterator[Table | Text]:
    if mlflow := result.get("mlflow"):
        yield line("registered", f"{mlflow['model']} version {mlflow['version']}{_champion(result)}")
    cached = [stage for stage, is_cached in result["cached"].items() if is_cached]
    reused = f"; from the cache: {', '.join(cached)}" if cached else ""
    yield line("time", f"{duration(sum(result['seconds'].values()))}{reused}")
    if result.get("report"):
        yield line("report", str(result["report"]))


def _champion(result: Numbers) -> str:
    """What became of the version that was registered."""
    promotion = result.get("promotion") or {}
    if not (reason := promotion.get("reason")):
        return ", the champion" if promotion else ""
    stays = f"; version {promotion['champion']} stays the champion" if promotion["champion"] else ""
    return f", not promoted: {reason}{stays}; promote it anyway: `kcm promote CONFIG {promotion['version']}`"


def foreign(text: str) -> Text:
    """What a caller sent, for a terminal: no markup, nothing that moves its cursor, and the first characters alone."""
    safe = "".join(letter if letter.isprintable() or letter == "\n" else "�" for letter in text[:MOST_CHARACTERS])
    return Text(safe + (f" … ({len(text):,} characters)" if len(text) > MOST_CHARACTERS else ""))


def table(title: str, rows: Iterable[Mapping[str, str | Text]], bold: int | None = None) -> Table:
    """A table of the command line: its `rows` by heading, as plain text; columns without letters stand to the right."""
    cells = [
        {heading: foreign(cell) if isinstance(cell, str) else cell for heading, cell in row.items()} for row in rows
    ]
    drawn = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in cells[0] if cells else ():
        is_number = all(_is_number(row[heading].plain) for row in cells)
        drawn.add_column(heading, justify="right" if is_number else "left", overflow="fold")
    for number, row in enumerate(cells):
        drawn.add_row(*row.values(), style="bold" if number == bold else None)
    return drawn


def _is_number(cell: str) -> bool:
    return not any(letter.isalpha() for letter in cell.partition("\n")[0])


def warning(text: str) -> Text:
    """What may mislead a reader who does not see it."""
    return Text(f"warning: {shown(text)}", style="yellow")


def line(name: str, value: str) -> Table:
    """A fact with its name in the margin."""
    grid = Table.grid()
    grid.add_column(width=12, style="bold")
    grid.add_column(overflow="fold")
    grid.add_row(name, Text(shown(value) or MISSING))
    return grid
