"""What `kcm savings` prints: the log, the answer for each prompt template, and what to do next."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from pathlib import Path

from kcm.certification.certificate import confidence
from kcm.logs.grouping import CLASSIFICATION, MIN_CALLS
from kcm.logs.read import UNKNOWN
from kcm.logs.savings import Savings, TemplateSavings
from kcm.logs.template import Template
from kcm.redact import redacted
from kcm.report.formats import money, plural, whole_percent

_SHOWN, _PROMPT = 5, 70


def warnings(savings: Savings) -> list[str]:
    """Lines on rows that cannot be read, and on calls without a price."""
    lines = []
    faults, rows = savings.reading.faults, savings.reading.num_rows
    if faults:
        reasons = "; ".join(f"{count:,} {reason}" for reason, count in faults.most_common(_SHOWN))
        lines.append(f"{faults.total():,} of {rows:,} rows cannot be read: {redacted(reasons)}")
    if savings.reading.formats and faults.get(UNKNOWN):
        lines.append("for a table name its columns by --input and --answer")
    if savings.num_unpriced > 0:
        models = sorted({name for template in savings.templates for name in template.tally.models} - {""})
        named = f" ({', '.join(models[:_SHOWN])})" if models else ""
        lines.append(f"{savings.num_unpriced:,} calls have neither a cost nor a listed price{named}")
    return lines


def overview(savings: Savings) -> Iterator[str]:
    """The log in one line, then the calls that are no classification."""
    read = ", ".join(f"{count:,} {name}" for name, count in savings.reading.formats.most_common())
    failed = savings.others.failed + sum(template.tally.failed for template in savings.templates)
    more = f", {failed:,} failed" if failed else ""
    templates = plural(len(savings.templates), "prompt template")
    yield f"{plural(savings.calls, 'call')}{_money(savings.spend)}{more}, {templates} ({read})"
    classified = [template for template in savings.templates if template.group.kind == CLASSIFICATION]
    rest = savings.calls - sum(template.tally.calls for template in classified)
    if rest:
        spend = None if savings.spend is None else savings.spend - sum(template.spend or 0.0 for template in classified)
        share = "" if not savings.spend or spend is None else f", {whole_percent(spend / savings.spend)} of the spend"
        yield f"No classification: {plural(rest, 'call')}, {whole_percent(rest / savings.calls)} of all{share}"


def template_lines(number: int, template: TemplateSavings, savings: Savings) -> Iterator[str]:
    """The answer for one template."""
    names = template.group.reader.names if template.group.reader else ()
    labels = f", {len(names):,} labels" if names else ""
    kind = template.group.kind
    share = whole_percent(template.tally.calls / savings.calls)
    yield f"{number}. {kind}: {plural(template.tally.calls, 'call')} ({share}){labels}{_money(template.spend)}"
    yield f"   prompt: {_prompt(template.group.template)}"
    if template.group.reader is None:
        return
    if template.forecast is None:
        yield f"   Too few calls with an answer to say anything: {len(template.tally.rows.items()):,}"
        return
    yield from (f"   {line}" for line in _forecast_lines(template))


def _forecast_lines(template: TemplateSavings) -> Iterator[str]:
    forecast = template.forecast
    assert forecast is not None
    drift, split = forecast.drift, forecast.split
    early, late, share = map(whole_percent, (drift.early, drift.late, forecast.share))
    halves = f"{drift.label!r} has {early} of its first half and {late} of its second"
    if forecast.could_save is None:
        yield f"No forecast: the mix of labels changes within the log: {halves} (p = {drift.p_value:.2g})"
        yield f"On this log's last calls the small model could have answered {share}"
        return
    if not forecast.share:
        yield f"Nothing could be saved: {forecast.why_nothing}"
        return
    low, high = forecast.interval
    sure, differ = confidence([forecast.delta]), per_hundred(forecast.bound)
    yield (
        f"{share} of these calls could have been answered by a small model; with {sure} probability"
        f" at most {differ} of all answers to this template would differ, if future calls are like these"
        f"{_saves(template)}"
    )
    yield f"Expect {whole_percent(low)} to {whole_percent(high)} of later calls (95% interval, if nothing changes)"
    how = "by time, earlier calls train" if split.by_time else "by a draw, since the log has no times"
    yield f"Trained on {len(split.train):,} calls, certified on {len(split.certify):,} others, split {how}"
    if drift.detected:
        yield f"warning: no forecast if the log is in the order of time: {halves} (p = {drift.p_value:.2g})"
    if forecast.stay:
        shown = ", ".join(forecast.stay[:_SHOWN]) + (", …" if len(forecast.stay) > _SHOWN else "")
        yield f"Must stay with the LLM: {len(forecast.stay):,} of {len(forecast.kept):,} labels: {shown}"
    if template.group.reader and template.group.reader.explains:
        yield "The LLM's replies explain their label; the small model gives the label alone"


def next_steps(savings: Savings, log: str, bundle: Path | None, config: Path | None) -> Iterator[str]:
    """What to do with the answer."""
    if savings.best is None:
        forecasts = [template.forecast for template in savings.templates if template.forecast]
        if not savings.templates:
            yield f"next: run this on a longer log; a prompt template needs at least {MIN_CALLS:,} calls"
        elif any(forecast.could_save is None for forecast in forecasts):
            yield "next: run this again on the part of the log since the mix is steady"
        elif any(forecast.is_short for forecast in forecasts):
            yield "next: run this on a longer log"
        else:
            yield "next: nothing to set up; kcm has no small model that helps here"
        return
    if savings.no_bundle:
        yield f"No bundle: {savings.no_bundle}"
        return
    if bundle is None:
        wanted = "--serve serve.yaml" if savings.best.is_told_apart else "--out DIR"
        wanted += "" if savings.best.tally.model else " --llm MODEL"
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


def _saves(template: TemplateSavings) -> str:
    """What that is in money."""
    if template.saves is None or template.spend is None:
        return ""
    if template.months:
        return f"; saves {money(template.saves / template.months, 'USD')} a month"
    return f"; saves {money(template.saves, 'USD')} of {money(template.spend, 'USD')}"


def _money(spend: float | None) -> str:
    return "" if spend is None else f", {money(spend, 'USD')}"


def _prompt(template: Template) -> str:
    """The template on one line: how it begins, the text, how it ends."""
    system = " | ".join(message.content for message in template.messages)
    parts = [_cut(system), f"{_cut(template.before)}{{text}}{_cut(template.after)}"]
    return redacted(" | ".join(part for part in parts if part))


def _cut(text: str) -> str:
    line = text.replace("\n", "⏎")
    return line if len(line) <= _PROMPT else f"{line[:_PROMPT]}…"
