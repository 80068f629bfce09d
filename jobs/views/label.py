"""What `kcm label` prints: the price of everything, the plan, the progress, and the result."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from jobs.views.table import plain_table
from kcm.labelling.label import LabelledTable, Watcher
from kcm.labelling.label_list import LabelList
from kcm.labelling.rounds import Forecast
from kcm.labelling.table import Texts
from kcm.large.base import Estimate

TARGETS = (0.9, 0.95, 0.98)
NOT_WORTH = 0.9  # share of the calls from which on a plan hardly saves anything


class Stopped(Exception):
    """The job ends here because the user asked for no more."""


class Screen(Watcher):
    """Prints a job as it goes, on standard error."""

    def __init__(self, *, dry_run: bool, pilot_only: bool, ask: bool, target: float) -> None:
        self._dry_run, self._pilot_only, self._ask, self._target = dry_run, pilot_only, ask, target
        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._price = 0.0
        self._num_texts = 0
        self._is_planned = False
        self.result: dict[str, object] = {}

    def start(self, texts: Texts, labels: LabelList, estimates: Sequence[Estimate | None]) -> None:
        """Rows, duplicates, labels, and the price of asking about every text."""
        self._num_texts, rows = len(texts.texts), len(texts.unit_N)
        copies = rows - texts.num_empty - self._num_texts
        self._say(
            f"{rows:,} rows, {self._num_texts:,} different texts in column {texts.column!r}, {len(labels.names)} labels"
        )
        if texts.num_empty:
            self._warn(f"{texts.num_empty:,} rows have no text: they get no label")
        if copies:
            self._say(f"{copies:,} rows repeat a text: they are asked once")
        estimate = estimates[-1]
        if estimate is not None:
            self._price = estimate.currency / max(1, estimate.calls)
            price = f", about ${estimate.currency:,.2f} (at most ${estimate.most:,.2f})" if estimate.most else ""
            self._say(f"Asking the LLM about everything: {estimate.calls:,} calls{price}")
        self.result = {"rows": rows, "texts": self._num_texts, "calls_for_all": self._num_texts}
        if self._dry_run:
            raise Stopped
        self._progress.start()
        self._task = self._progress.add_task("pilot", total=None, state="")

    def bought(self, count: int, spent: float) -> None:
        """One line that moves."""
        if self._task is not None:
            state = f"{count:,} bought" + (f", ${spent:,.2f} spent" if spent else "")
            self._progress.update(self._task, completed=count, state=state)

    def planned(self, forecast: Forecast, at: Callable[[float], Forecast]) -> None:
        """The plan after the pilot; later the total that is expected now."""
        assert self._task is not None
        self._progress.update(self._task, total=round(forecast.total), description="buying")
        if self._is_planned:
            return
        self._is_planned = True
        self._progress.stop()
        self._console.print(self._plan(forecast, at))
        share = forecast.total / self._num_texts
        self.result |= {"planned_calls": round(forecast.total), "planned_share": share}
        if share >= NOT_WORTH:
            self._warn(f"not worth it at this target: the plan still asks about {100 * share:.0f}% of the texts")
        if self._pilot_only:
            raise Stopped
        if self._ask and not typer.confirm("Go on?", default=True, err=True):
            raise Stopped
        self._progress.start()

    def close(self) -> None:
        """Remove the moving line."""
        self._progress.stop()

    def _plan(self, forecast: Forecast, at: Callable[[float], Forecast]) -> Table:
        table = plain_table(f"Plan after a pilot of {forecast.bought:,} calls (a forecast, not a certificate)")
        for name in ("target", "calls", "share of all", *(["cost"] if self._price else [])):
            table.add_column(name, justify="right")
        for target in sorted({*TARGETS, self._target}):
            total = min(at(target).total, self._num_texts)
            cost = [f"${total * self._price:,.2f}"] if self._price else []
            style = "bold" if target == self._target else None
            table.add_row(
                f"{100 * target:g}%", f"{total:,.0f}", f"{100 * total / self._num_texts:.0f}%", *cost, style=style
            )
        return table

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False)

    def _warn(self, line: str) -> None:
        typer.secho(f"warning: {line}", fg=typer.colors.YELLOW, err=True)


def closing(found: LabelledTable) -> list[str]:
    """The lines at the end: the promise, what it took, and what was saved."""
    certificate = found.certificate
    lines = [certificate.sentence]
    saved = 1 - certificate.bought / max(1, certificate.texts)
    money = f", ${found.cost:,.2f}" if found.cost else ""
    lines.append(
        f"Bought {certificate.bought:,} of {certificate.texts:,} answers{money}: {100 * saved:.0f}% of the calls saved."
    )
    if certificate.failed:
        lines.append(f"{certificate.failed:,} rows have no usable answer (label_source `failed`).")
    if certificate.look is None:
        lines.append("This look is not recorded: no ledger was named.")
    return lines


def next_steps(found: LabelledTable, bundle: Path) -> list[str]:
    """What to do with the bundle, or why there is none."""
    if found.no_bundle:
        return [f"No bundle for the next file: {found.no_bundle}."]
    folder = shlex.quote(str(bundle))
    column = "" if found.texts.column == "text" else f" --text-column {shlex.quote(found.texts.column)}"
    return [
        f"next: kcm predict {folder} FILE -o OUT{column} | kcm serve --bundle {folder} (not certified for new rows)",
    ]
