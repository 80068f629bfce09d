"""What `kcm savings` prints: the log, the answer for each prompt template, and what to do next."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.status import Status

from kcm.certification.certificate import confidence
from kcm.logs.grouping import CLASSIFICATION, MIN_CALLS, ONE_ANSWER
from kcm.logs.read import UNKNOWN
from kcm.logs.savings import Savings, TemplateSavings
from kcm.logs.template import Template
from kcm.redact import redacted
from kcm.report.formats import money, plural, whole_percent

_SHOWN, _PROMPT, _STEP = 5, 70, 5_000
_REPEATED = 0.2  # share of calls with an earlier text from which on a cache is worth a line


class StatusLine:
    """One line on standard error that moves, if a person looks."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._status = Status("reading the log", console=console) if console.is_terminal else None
        if self._status:
            self._status.start()

    def show(self, step: str, count: int) -> None:
        """Say which step is done, and how much of it."""
        if self._status and (count % _STEP == 0 or count < _SHOWN):
            self._status.update(f"{step}: {count:,}")

    def close(self) -> None:
        """Remove the line."""
        if self._status:
            self._status.stop()


def warnings(found: Savings) -> list[str]:
    """Lines on rows that cannot be read, and on calls without a price."""
    lines = []
    faults, rows = found.reading.faults, found.reading.num_rows
    if faults:
        reasons = "; ".join(f"{count:,} {reason}" for reason, count in faults.most_common(_SHOWN))
        lines.append(f"{faults.total():,} of {rows:,} rows cannot be read: {redacted(reasons)}")
    if found.reading.formats and faults.get(UNKNOWN):
        lines.append("for a table name its columns by --input and --answer")
    if found.num_unpriced > 0:
        models = sorted({name for each in found.templates for name in each.tally.models} - {""})
        named = f" ({', '.join(models[:_SHOWN])})" if models else ""
        lines.append(f"{found.num_unpriced:,} calls have neither a cost nor a listed price{named}")
    return lines


def overview(found: Savings) -> Iterator[str]:
    """The log in one line, then the calls that are no classification."""
    read = ", ".join(f"{count:,} {name}" for name, count in found.reading.formats.most_common())
    failed = found.others.failed + sum(each.tally.failed for each in found.templates)
    more = f", {failed:,} failed" if failed else ""
    templates = plural(len(found.templates), "prompt template")
    yield f"{plural(found.calls, 'call')}{_money(found.spend)}{more}, {templates} ({read})"
    classified = [each for each in found.templates if each.group.kind == CLASSIFICATION]
    rest = found.calls - sum(each.tally.calls for each in classified)
    if rest:
        spend = None if found.spend is None else found.spend - sum(each.spend or 0.0 for each in classified)
        share = "" if not found.spend or spend is None else f", {whole_percent(spend / found.spend)} of the spend"
        yield f"No classification: {plural(rest, 'call')}, {whole_percent(rest / found.calls)} of all{share}"


def template_lines(number: int, each: TemplateSavings, found: Savings) -> Iterator[str]:
    """The answer for one template."""
    names = each.group.reader.names if each.group.reader else ()
    labels = f", {len(names):,} labels" if names else ""
    kind = each.group.kind
    share = whole_percent(each.tally.calls / found.calls)
    yield f"{number}. {kind}: {plural(each.tally.calls, 'call')} ({share}){labels}{_money(each.spend)}"
    yield f"   prompt: {_prompt(each.group.template)}"
    if kind == ONE_ANSWER:
        yield "   Nearly all answers are the same: is this call needed?"
    if each.group.reader is None:
        return
    if each.forecast is None:
        yield f"   Too few calls with an answer to say anything: {len(each.tally.rows.items()):,}"
        return
    yield from (f"   {line}" for line in _forecast_lines(each, found.max_loss))


def _forecast_lines(each: TemplateSavings, max_loss: float) -> Iterator[str]:
    forecast = each.forecast
    assert forecast is not None
    drift, split = forecast.drift, forecast.split
    early, late, share = map(whole_percent, (drift.early, drift.late, forecast.share))
    halves = f"{drift.label!r} has {early} of its first half and {late} of its second"
    if forecast.could_save is None:
        yield f"No forecast: the mix of labels changes within the log: {halves} (p = {drift.p_value:.2g})"
        yield f"On this log's last calls the small model could have answered {share}"
        return
    if not forecast.share:
        yield f"Nothing could be saved: {forecast.why_nothing(max_loss)}"
        return
    low, high = forecast.interval
    sure, differ = confidence([forecast.delta]), per_hundred(forecast.bound)
    yield (
        f"{share} of these calls could have been answered by a small model; with {sure} probability"
        f" at most {differ} of all answers to this template would differ, if future calls are like these{_saves(each)}"
    )
    yield f"Expect {whole_percent(low)} to {whole_percent(high)} of later calls (95% interval, if nothing changes)"
    how = "by time, earlier calls train" if split.by_time else "by a draw, since the log has no times"
    yield f"Trained on {len(split.train):,} calls, certified on {len(split.certify):,} others, split {how}"
    if drift.detected:
        yield f"warning: no forecast if the log is in the order of time: {halves} (p = {drift.p_value:.2g})"
    if forecast.stay:
        shown = ", ".join(forecast.stay[:_SHOWN]) + (", …" if len(forecast.stay) > _SHOWN else "")
        yield f"Must stay with the LLM: {len(forecast.stay):,} of {len(forecast.kept):,} labels: {shown}"
    if each.group.reader and each.group.reader.explains:
        yield "The LLM's replies explain their label; the small model gives the label alone"
    repeated = 1 - len({row.text for row in split.ordered}) / len(split.ordered)
    if repeated >= _REPEATED:
        yield f"{whole_percent(repeated)} of these calls repeat an earlier text: a cache saves them too"


def next_steps(found: Savings, log: str, bundle: Path | None, config: Path | None) -> Iterator[str]:
    """What to do with the answer."""
    if found.best is None:
        drifts = any(each.forecast and each.forecast.could_save is None for each in found.templates)
        newer = "run this again on the part of the log since the mix is steady"
        if not found.templates:
            yield f"next: run this on a longer log; a prompt template needs at least {MIN_CALLS:,} calls"
            return
        yield f"next: {newer if drifts else 'nothing to set up; kcm has no small model that helps here'}"
        return
    if found.no_bundle:
        yield f"No bundle: {found.no_bundle}"
        return
    if bundle is None:
        wanted = "--serve serve.yaml" if found.best.is_told_apart else "--out DIR"
        yield f"next: kcm savings {shlex.quote(log)} {wanted} writes what answers these calls"
        return
    folder = shlex.quote(str(bundle))
    if config is not None:
        yield f"next: kcm serve {shlex.quote(str(config))} --bundle {folder}, and set base_url of your client to it"
    else:
        yield f"next: kcm predict {folder} FILE -o OUT | kcm serve --bundle {folder}"


def per_hundred(share: float) -> str:
    """A share as `2 in 100`, or rounded up to whole ones in 1,000."""
    count = math.ceil(round(1_000 * share, 6))
    return f"{count // 10:,} in 100" if count % 10 == 0 else f"{count:,} in 1,000"


def _saves(each: TemplateSavings) -> str:
    """What that is in money."""
    if each.saves is None or each.spend is None:
        return ""
    if each.months:
        return f"; saves {money(each.saves / each.months, 'USD')} a month"
    return f"; saves {money(each.saves, 'USD')} of {money(each.spend, 'USD')}"


def _money(spend: float | None) -> str:
    return "" if spend is None else f", {money(spend, 'USD')}"


def _prompt(template: Template) -> str:
    """The template on one line: how it begins, the text, how it ends."""
    system = " | ".join(message.content for message in template.messages)
    parts = [_cut(system), f"{_cut(template.before)}{{text}}{_cut(template.after)}"]
    return redacted(" | ".join(part for part in parts if part))


def _cut(text: str) -> str:
    line = " ".join(text.split(" ")).replace("\n", "⏎")
    return line if len(line) <= _PROMPT else f"{line[:_PROMPT]}…"
