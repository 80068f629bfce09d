"""The output of a study: a table of networks and learners."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from jobs.views.table import percent, plain_table

Numbers = Mapping[str, Any]

_COLUMNS = {
    "learning_accuracy": "learning\naccuracy",
    "forgetting_first": "for-\ngetting",
    "gap_to_joint": "gap to\njoint",
}
_NONE = "–"
_TAIL = {"head": "head", "middle": "middle", "tail": "tail"}


def study_view(result: Numbers) -> Group:
    """The table of a study's cells, the paired differences, and what the data were."""
    return Group(_cells(result), *_differences(result), _data(result["data"]))


def _cells(result: Numbers) -> Table:
    num_seeds = max(len(cell["per_seed"]) for cell in result["cells"])
    table = plain_table(f"In %, means over {num_seeds} seed{'s' if num_seeds > 1 else ''}, ± half the 95% t interval")
    for heading in ("network", "learner", "memory\nper class"):
        table.add_column(heading, no_wrap=True)
    columns = _COLUMNS | (_TAIL if result["data"]["long_tail"] else {})
    shown = {key: columns[key] for key in columns if any(cell["aggregated"][key] for cell in result["cells"])}
    for heading in ("average\naccuracy", *shown.values(), "para-\nmeters", "CPU s\nper task", "memory\nKiB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for cell in result["cells"]:
        numbers = cell["aggregated"]
        table.add_row(
            cell["network"],
            cell["learner"] or _NONE,
            _memory(cell),
            _with_interval(numbers["average_accuracy"]),
            *(percent(numbers[key] and numbers[key]["mean"]) for key in shown),
            f"{cell['num_parameters']:,}",
            f"{numbers['seconds']['mean']:.2f}",
            f"{numbers['memory_bytes']['mean'] / 1024:,.0f}",
        )
    return table


def _memory(row: Numbers) -> str:
    return _NONE if row["memory_per_class"] is None else f"{row['memory_per_class']:g}"


def _with_interval(numbers: Numbers) -> str:
    if numbers["interval"] is None:
        return percent(numbers["mean"])
    return f"{percent(numbers['mean'])} [dim]±{100 * (numbers['interval'][1] - numbers['mean']):.1f}[/dim]"


def _differences(result: Numbers) -> Iterator[Table]:
    rows = [row for row in result["differences"] if row["average_accuracy"]]
    if not rows:
        return
    table = plain_table("Average accuracy in points, paired by seed, with 95% t intervals")
    for heading in ("difference", "learner", "memory\nper class", "points", "from", "to", "degrees of\nfreedom"):
        table.add_column(heading, no_wrap=True, justify="left" if heading in ("difference", "learner") else "right")
    for row in rows:
        numbers = row["average_accuracy"]
        table.add_row(
            f"{row['first']} - {row['second']}",
            row["learner"],
            _memory(row),
            *(percent(numbers[key], "+.1f") for key in ("estimate", "low", "high")),
            str(numbers["degrees_of_freedom"]),
        )
    yield table


def _data(data: Numbers) -> Text:
    rows = ", ".join(f"{number:,} {split}" for split, number in data["rows"].items())
    left_out = f"; {len(data['rows_left_out'])} rows left out" if data["rows_left_out"] else ""
    return Text(
        f"{data['name']}: {data['num_classes']} classes in {data['num_tasks']} tasks, {rows} rows{left_out}",
        overflow="fold",
    )
