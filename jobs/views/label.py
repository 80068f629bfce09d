"""What `kcm label` prints: the price of everything, the plan, the progress, and the result."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from jobs.views.table import table
from kcm.inputs.visible import shown
from kcm.labelling.certificate import TableCertificate, at_least
from kcm.labelling.forecaster import Forecast
from kcm.labelling.label import LabelledTable
from kcm.labelling.label_list import LabelList
from kcm.labelling.rounds import Watcher
from kcm.labelling.texts import Texts
from kcm.labelling.truth import Accuracies
from kcm.large.base import Estimate
from kcm.metrics.intervals import Interval
from kcm.report.formats import money, whole_percent

TARGETS = (0.9, 0.95, 0.98)
NOT_WORTH = 0.9  # share of the calls from which on a plan hardly saves anything


class Stopped(Exception):
    """The job ends here because the user asked for no more."""


class Screen(Watcher):
    """Prints a job as it goes, on standard error."""

    def __init__(self, *, dry_run: bool, pilot_only: bool, ask: bool, target: float | None, batch: bool) -> None:
        self._batch = batch
        self._dry_run, self._pilot_only, self._ask, self._target = dry_run, pilot_only, ask, target
        self._console = Console(stderr=True, highlight=False)
        self._status = self._console.status("buying the pilot")
        self._price = self._spent = 0.0
        self._num_texts = self._num_compared = self._num_bought = self._num_cheaper = 0
        self._total: float | None = None
        self._promised: float | None = None
        self._is_planned = False
        self.result: dict[str, object] = {}

    def start(self, texts: Texts, labels: LabelList, estimates: Sequence[Estimate | None], num_compared: int) -> None:
        """Rows, duplicates, labels, and the price of asking about every text."""
        self._num_texts, rows = len(texts.texts), len(texts.unit_N)
        self._num_compared = num_compared
        copies = rows - texts.num_empty - self._num_texts
        self._say(
            f"{rows:,} rows, {self._num_texts:,} different texts in column {texts.column!r},"
            f" {len(labels.names):,} labels"
        )
        if texts.num_empty:
            self._warn(f"{texts.num_empty:,} rows have no text: they get no label")
        if copies:
            self._say(f"{copies:,} rows repeat a text: they are asked once")
        estimate = estimates[-1]
        if estimate is not None and estimate.calls < self._num_texts:
            self._say(f"{self._num_texts - estimate.calls:,} answers are paid for already: they cost nothing")
        if estimate is not None:
            self._price = estimate.currency / max(1, estimate.calls)
            by = " in batches" if self._batch else ""
            unpriced = ". Their price is unknown: name it by --input-price and --output-price"
            price = (
                f", about ${estimate.currency:,.2f} (at most ${estimate.most:,.2f}){by}"
                if estimate.most
                else unpriced * bool(estimate.calls)
            )
            self._say(f"Asking the LLM about everything: {estimate.calls:,} calls{price}")
        self.result = {"rows": rows, "texts": self._num_texts, "calls_for_all": self._num_texts}
        if self._dry_run:
            raise Stopped
        self._status.start()

    def resumed(self) -> None:
        """There is no pilot to buy any more."""
        if self._pilot_only:
            self._say("Nothing bought: the pilot is over, the draw has begun. Without --pilot-only it is finished.")
            raise Stopped

    def bought(self, count: int, spent: float) -> None:
        """One line that moves."""
        self._num_bought, self._spent = count, spent
        self._move()

    def bought_cheaper(self, count: int, spent: float) -> None:
        """The same line."""
        self._num_cheaper, self._spent = count, spent
        self._move()

    def said(self, line: str) -> None:
        """Above the moving line."""
        self._say(line)

    def drawn(self, total: int, promised: float) -> None:
        """The draw has decided what is left to buy."""
        self._total, self._promised = total, promised if self._target is not None else None
        self._move()

    def planned(self, forecast: Forecast, at: Callable[[float], Forecast]) -> None:
        """The plan after the pilot; later the total that is expected now."""
        total = min(forecast.total, self._num_texts)
        self._total, self._promised = total, forecast.promised
        self._move()
        if self._is_planned:
            return
        self._is_planned = True
        self._status.stop()
        self._console.print(self._plan(forecast, at))
        share = total / self._num_texts
        compared = round(self._num_compared * forecast.plan.kept / self._num_texts)
        if compared:
            cost = f", ${compared * self._price:,.2f}," if self._price else ""
            self._say(f"Plus about {compared:,} calls{cost} for the LLM's accuracy on rows with people's labels")
        self.result |= {"planned_calls": round(total) + compared, "planned_share": share}
        for rare in forecast.rare:
            self._warn(
                f"{rare.kind} of {rare.name!r} cannot be promised: none of {forecast.bought:,} answers is this label"
            )
        if share >= NOT_WORTH:
            self._warn(f"not worth it at this target: the plan still asks about {100 * share:.0f}% of the texts")
        if self._pilot_only:
            raise Stopped
        if self._ask and not typer.confirm("Go on?", default=True, err=True):
            raise Stopped
        self._status.start()

    def close(self) -> None:
        """Remove the moving line."""
        self._status.stop()

    def _move(self) -> None:
        """Show where the job stands."""
        count, total = self._num_bought, None if self._total is None else round(self._total)
        self._status.update(progress_line(count, total, self._spent, self._price, self._promised, self._num_cheaper))

    def _plan(self, forecast: Forecast, at: Callable[[float], Forecast]) -> Table:
        targets: list[float | None] = [None] if self._target is None else [*sorted({*TARGETS, self._target})]
        rows = []
        for target in targets:
            expected = forecast if target is None else at(target)
            total = min(expected.total, self._num_texts)
            row = {
                "target": "guarantees" if target is None else f"{100 * target:g}%",
                "calls": f"{total:,.0f}",
                "share of all": whole_percent(total / self._num_texts),
            }
            if self._price:
                halves = total + min(expected.trained, total) if self._batch else total  # training is asked one by one
                row["cost"] = money(halves * self._price, "USD")
            rows.append(row)
        title = f"Plan after a pilot of {forecast.bought:,} calls (a forecast, not a certificate)"
        return table(title, rows, bold=targets.index(self._target))

    def _say(self, line: str) -> None:
        self._console.print(shown(line), markup=False)

    def _warn(self, line: str) -> None:
        typer.secho(f"warning: {shown(line)}", fg=typer.colors.YELLOW, err=True)


def progress_line(
    bought: int, total: int | None, spent: float, price: float, promised: float | None, cheaper: int = 0
) -> str:
    """Answers and money so far and in the end, and the promise that is expected: a forecast, not a certificate.

    `price` is the price of one answer, 0 if unknown; `total` and `promised` are None without a plan.
    """
    parts = [f"{bought:,} bought" if total is None else f"{bought:,} of about {max(bought, total):,} bought"]
    if spent:
        further = price * max(0, (total or 0) - bought)
        parts.append(f"${spent:,.2f} spent" if total is None else f"${spent:,.2f} of about ${spent + further:,.2f}")
    if cheaper:
        parts.append(f"{cheaper:,} by the cheaper model")
    if promised is not None:
        parts.append(f"forecast: {100 * promised:.1f}% proved")
    return ", ".join(parts)


def closing(table: LabelledTable) -> list[str]:
    """The lines at the end: the promise, what it took, what was saved, and what may mislead."""
    certificate = table.certificate
    lines = [certificate.sentence]
    for promise in certificate.guarantees:
        verdict = "proved" if promise.holds else "NOT REACHED"
        share = f"{100 * promise.asked:g}% {verdict}, at least {at_least(promise.proved)}"
        lines.append(f"{promise.kind} of {promise.label!r}: {share}.")
    saved = 1 - certificate.bought / max(1, certificate.texts)
    cost = f", {money(table.cost, 'USD')}" if table.cost else ""
    lines.append(
        f"Bought {certificate.bought:,} of {certificate.texts:,} answers{cost}: {100 * saved:.0f}% of the calls saved."
    )
    if certificate.bought_cheaper:
        pays = "" if certificate.bought_cheaper == certificate.texts else "; more would not have paid"
        lines.append(f"The cheaper model answered {certificate.bought_cheaper:,} texts{pays}.")
    if table.accuracies is not None:
        lines += _accuracies(table.accuracies)
    if certificate.failed:
        lines.append(_warned(f"{certificate.failed:,} rows have no usable answer (label_source `failed`)."))
    return [*lines, *map(_warned, _odd_answers(table)), *_more_money(table)]


def _odd_answers(table: LabelledTable) -> list[str]:
    """Labels that the LLM never gave, which may be a mistake in the prompt or in the list."""
    counts = np.bincount(table.result.answer_U[table.result.bought_U], minlength=len(table.labels.names))
    unused = [name for name, count in zip(table.labels.names, counts, strict=True) if not count]
    if len(unused) == len(counts) - 1 and counts.sum() > 1:
        return [f"The LLM answered {table.labels.names[counts.argmax()]!r} to all {counts.sum():,} texts."]
    shown = ", ".join(map(repr, unused[:5])) + (", ..." if len(unused) > 5 else "")
    return [f"The LLM never answered {shown}."] if unused else []


def _more_money(table: LabelledTable) -> list[str]:
    """The cap that should prove the target, if the money was too little."""
    plan, missing = table.result.lacking, table.missing_cost
    if plan is None or missing is None:
        return []
    return [
        f"The target should need {plan.calls:,.0f} further calls, at most {money(missing, 'USD')}:"
        f" raise the cap to {money(table.cost + missing, 'USD')}."
    ]


def _warned(text: str) -> str:
    return typer.style(f"warning: {shown(text)}", fg=typer.colors.YELLOW)


def not_proved(certificate: TableCertificate) -> list[str]:
    """The requested promises that are not proved, with the proved bounds."""
    missed = [promise for promise in certificate.guarantees if not promise.holds]
    lines = [f"{promise.kind} of {promise.label!r} {promise.asked:g}, proved {promise.proved:g}" for promise in missed]
    if certificate.target is not None and certificate.most_differ > certificate.allowed:
        lines.insert(0, f"target {certificate.target:g}, proved {certificate.promised:g}")
    return lines


def next_steps(table: LabelledTable, bundle: Path, learning: Path | None) -> list[str]:
    """What to do with the bundle, or why there is none; `learning` is the configuration of a run that goes on."""
    if table.no_bundle:
        return [f"No model is saved for the next file: {table.no_bundle}."]
    folder, lines = shlex.quote(str(bundle)), []
    column = "" if table.texts.column == "text" else f" --text-column {shlex.quote(table.texts.column)}"
    if learning is not None:
        config = shlex.quote(str(learning))
        lines.append(f"keep it learning: kcm run {config}, then kcm serve {config} and kcm update {config}")
    predict = f"kcm predict {folder} FILE -o OUT{column} | kcm serve --bundle {folder}"
    return [*lines, f"next: {predict} (not certified for new rows)"]


def _accuracies(accuracies: Accuracies) -> list[str]:
    """What people's labels say, apart from the promise."""
    llm = "not measured: the money left does not pay for its answers" if not accuracies.llm else _share(accuracies.llm)
    lines = [
        f"By people's labels on {accuracies.rows:,} rows, if they are a random sample: the delivered labels are right"
        f" in {_share(accuracies.labels)}; the LLM: {llm}."
    ]
    if accuracies.bought:
        lines.append(f"For the LLM's accuracy {accuracies.bought:,} further answers were bought; no label changed.")
    return lines


def _share(share: Interval) -> str:
    return f"{100 * share.estimate:.1f}% (95% interval {100 * share.low:.1f} to {100 * share.high:.1f}%)"
