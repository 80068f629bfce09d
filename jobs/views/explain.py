"""The output of `kcm explain` for one input: decision, word effects, and largest contributions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from kcm.explain.explanation import Explanation
from kcm.explain.gate import GateReading, LabelRates
from kcm.explain.reasons import Reasons

_MOST_LABELS = 12  # whose rates are told; of more the first and the last
_SHOWN = 5e-4  # a smaller contribution would be shown as zero


def explanation_view(explanation: Explanation, label_names: Sequence[str], top: int) -> Group:
    """The decision and its largest contributions, for a person."""
    judgement = explanation.judgement
    threshold = f" against {judgement.threshold:.2f}" if math.isfinite(judgement.threshold) else ""
    asked = _shortened(explanation.example.content.text) or "the picture"
    headline = (
        f"[bold]{escape(asked)}[/bold]\nsmall says {escape(explanation.label)} ({explanation.answer_probability:.3f}), "
        f"the judge {escape(explanation.judge_label)} ({judgement.judge_confidence:.3f}); "
        f"gate score {judgement.gate_score:.2f}{threshold}: the {explanation.route} model answers"
    )
    words = ", ".join(f"{escape(word)} {effect:+.2f}" for word, effect in explanation.strongest_words[:top])
    tables = (
        part for name, reasons in explanation.reasons.items() for part in reasons_view(name, reasons, label_names)
    )
    shaded = [f"words that the judge heeds: {words}"] if words else []
    gate = [] if explanation.gate is None else _gate(explanation.gate)
    return Group(headline, *shaded, *gate, *tables)


def reasons_view(name: str, reasons: Reasons, label_names: Sequence[str]) -> tuple[str, Table | str]:
    """The logit of a network's answer, and what it is made of."""
    return _title(name, reasons, label_names), _contributions(reasons)


def _title(name: str, reasons: Reasons, label_names: Sequence[str]) -> str:
    kind = "exact shares" if reasons.exact else "approximate shares"
    return f"\n{name}: logit {reasons.logit:.2f} of {escape(label_names[reasons.label])}, {kind}"


def _gate(reading: GateReading) -> list[str | Table]:
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("signal", "value", "adds", "what it is"):
        table.add_column(heading, justify="right" if heading in ("value", "adds") else "left")
    for curve, value, added in zip(reading.curves, reading.values, reading.contributions, strict=True):
        table.add_row(curve.signal.name, f"{value:.3g}", f"{added:+.2f}", curve.signal.meaning)
    table.add_section()
    table.add_row("constant", "", f"{reading.constant:+.2f}", "the gate score of an average row")
    return [f"\nthe gate score {reading.score:.2f} is the sum of", table, *rates_view(reading.labels, reading.answer)]


def rates_view(labels: Sequence[LabelRates], answer: LabelRates | None = None) -> list[str | Table]:
    """How often both models are right by the small one's answer; of many labels the ends, and that of `answer`."""
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("the small model answers", "it is right", "the large model is right", "both add"):
        table.add_column(heading, justify="left" if not table.columns else "right")
    ends = labels if len(labels) <= _MOST_LABELS else (*labels[: _MOST_LABELS // 2], *labels[-_MOST_LABELS // 2 :])
    for each in labels:
        if each in ends or each == answer:
            name = escape(each.label) + (" (this answer)" if each == answer else "")
            rates = (f"{100 * rate:.1f}%" for rate in (each.small_accuracy, each.large_accuracy))
            table.add_row(name, *rates, f"{each.added:+.2f}")
    number = len(labels)
    whole = "" if number <= _MOST_LABELS else f"; {table.row_count} of {number} labels, all of them in --json FILE"
    return [f"what the gate knows of labels, from validate rows{whole}", table]


def _contributions(reasons: Reasons) -> Table | str:
    added = (*(each.contribution for each in reasons.contributions), reasons.rest)
    if reasons.base and all(abs(each) < _SHOWN for each in added):
        return "all of it by the means of the classes: on top of these, no curve adds anything here"
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("curve of", "value", "contribution"):
        table.add_column(heading, justify="right")
    for each in reasons.contributions:
        table.add_row(each.name, f"{each.value:+.2f}", f"{each.contribution:+.3f}")
    table.add_section()
    table.add_row("all others", "", f"{reasons.rest:+.3f}")
    table.add_row("baseline", "", f"{reasons.baseline:+.3f}")
    if reasons.base:
        table.add_row("class means, which no curve shows", "", f"{reasons.base:+.3f}")
    return table


def _shortened(text: str, length: int = 100) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
