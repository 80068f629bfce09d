"""The tables at the end of a run: KCM and MCM, per task and overall, and the paths of all files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from kcm.report.glossary import metric
from kcm.report.words import added_to_base, headline, large_faults, promise, why_deployed

Numbers = Mapping[str, Any]

WIDTH = 100
NETWORKS = {"kcm": "KCM", "mcm": "MCM"}
_NONE = "–"


def result_console() -> Console:
    """Standard output, wide enough for the tables also where it is a file or a pipe."""
    console = Console(highlight=False)
    return console if console.is_terminal and console.width >= WIDTH else Console(highlight=False, width=WIDTH)


def result_view(result: Numbers) -> Group:
    """The tables and lines of a finished run's result."""
    return Group(_cascade_table(result), _continual_table(result), *_lines(result))


def _cascade_table(result: Numbers) -> Table:
    table = plain_table("Accuracy on test in %, with 95% intervals (the difference is paired by row)")
    table.add_column("task\nrows", overflow="fold", min_width=12)
    table.add_column("\n", no_wrap=True)
    for heading in ("small", "large", "cascade", "cascade\n- large", "call\nrate %", "calls\nsaved %", "cost\nsaved %"):
        table.add_column(heading, justify="right", no_wrap=True)
    sides = _sides(result)
    tasks = sides[0]["tasks"]
    for task in tasks if len(tasks) > 1 else ():
        _add_rows(table, task, {side["name"]: side["tasks"][task] for side in sides})
    name = "overall" if len(tasks) != 1 else next(iter(tasks))
    _add_rows(table, name, {side["name"]: side["overall"] for side in sides}, style="bold")
    return table


def _add_rows(table: Table, task: str, sides: Mapping[str, Numbers], style: str | None = None) -> None:
    for position, (name, numbers) in enumerate(sides.items()):
        first = "" if position else f"{escape(task)}\n{numbers['num_rows']:,} rows"
        table.add_row(first, name, *_cells(numbers), style=style)
    table.add_section()


def _cells(numbers: Numbers) -> Iterator[str]:
    for who in ("small", "large", "cascade"):
        low, high = numbers[f"{who}_accuracy_interval"]
        yield f"{percent(numbers[f'{who}_accuracy'])}\n[dim]{percent(low)}–{percent(high)}[/dim]"
    low, high = numbers["difference_interval"]
    yield f"{percent(numbers['difference'], '+.1f')}\n[dim]{percent(low, '+.1f')} to {percent(high, '+.1f')}[/dim]"
    for key in ("call_rate", "calls_saved", "cost_saved"):
        yield percent(numbers[key])


def _continual_table(result: Numbers) -> Table:
    table = plain_table("Continual learning" if len(_sides(result)[0]["tasks"]) > 1 else "Size")
    table.add_column("measure", min_width=28)
    sides = _sides(result)
    for side in sides:
        table.add_column(side["name"], justify="right", min_width=10)
    measures = sides[0]["continual"] if len(sides[0]["tasks"]) > 1 else ()  # one task has nothing to forget
    for measure in (name for name in measures if any(side["continual"][name] is not None for side in sides)):
        words = metric(measure)
        table.add_row(words.label, *(words.show(side["continual"][measure]) for side in sides))
    table.add_row("Trainable parameters", *(f"{side['num_parameters']:,}" for side in sides))
    return table


def _sides(result: Numbers) -> list[Numbers]:
    """The collaborators that the run trained, each with its name."""
    return [{"name": name, **result[key]} for key, name in NETWORKS.items() if key in result]


def plain_table(title: str) -> Table:
    """An empty table in the style of all tables of the command line."""
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))


def _lines(result: Numbers) -> Iterator[Text]:
    yield line("result", headline(result))
    if advice := result.get("recommendation"):
        yield line("advice", advice)
    if why := why_deployed(result):
        yield line("deployed", why)
    if added := added_to_base(result):
        yield line("base", added)
    yield line("certificate", promise(result["certificate"]))
    for fault in large_faults(result):
        yield line("large model", fault)
    yield from _out_of_scope(result)
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
    for side in _sides(result):
        if found := side.get("out_of_scope"):
            escalated, right = (percent(found[f"out_of_scope_{key}"]) for key in ("escalated", "accuracy"))
            rows = f"{found['out_of_scope_num_rows']:,} rows with none of the labels"
            yield line("no label", f"{side['name']} escalates {escalated}% of {rows}; {right}% are answered so")


def line(name: str, value: str) -> Text:
    return Text.assemble((f"{name:<12}", "bold"), value, overflow="fold")


def percent(value: float | None, form: str = ".1f") -> str:
    """A share in percent, or a dash where there is none."""
    return _NONE if value is None else f"{100 * value:{form}}"
