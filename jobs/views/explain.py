"""The output of `kcm explain` for one input: decision, word effects, and largest contributions."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from jobs.views.table import table
from kcm.explain.explanation import Explanation, Reasons
from kcm.explain.gate import GateReading, LabelRates
from kcm.report.formats import percent

_SHOWN = 5e-4  # a smaller contribution would be shown as zero


def explanation_view(explanation: Explanation, label_names: Sequence[str], top: int) -> Group:
    """The decision and its largest contributions, for a person."""
    judgement = explanation.judgement
    asked = _shortened(explanation.example.content.text) or "the picture"
    headline = (
        f"[bold]{escape(asked)}[/bold]\nThe {explanation.route} model answers: the gate score is"
        f" {judgement.gate_score:.2f}{judgement.against}. The small model says {escape(explanation.label)}"
        f" ({percent(explanation.answer_probability)}), the judge {escape(explanation.judge_label)}"
        f" ({percent(judgement.judge_confidence)})."
    )
    words = ", ".join(f"{escape(word)} {effect:+.2f}" for word, effect in explanation.strongest_words[:top])
    reasons = (part for name, own in explanation.reasons.items() for part in reasons_view(name, own, label_names))
    gate = [] if explanation.gate is None else _gate(explanation.gate)
    return Group(headline, *([f"words that matter to the judge: {words}"] if words else []), *gate, *reasons)


def reasons_view(name: str, reasons: Reasons, label_names: Sequence[str]) -> tuple[str, Table | str]:
    """The logit of a network's answer, and what it is made of."""
    kind = "exact shares" if reasons.exact else "approximate shares"
    return f"\n{name}: logit {reasons.logit:.2f} of {escape(label_names[reasons.label])}, {kind}", _contributions(
        reasons
    )


def _gate(reading: GateReading) -> list[Table]:
    rows = [
        {
            "signal": curve.signal.name,
            "value": f"{value:.3g}",
            "adds": f"{added:+.2f}",
            "what it is": curve.signal.meaning,
        }
        for curve, value, added in zip(reading.curves, reading.values, reading.contributions, strict=True)
    ]
    constant = {"signal": "constant", "value": "", "adds": f"{reading.constant:+.2f}"}
    rows.append(constant | {"what it is": "the gate score of an average row"})
    title = f"\nThe gate score {reading.score:.2f} is the sum of"
    return [table(title, rows), rates_view([reading.answer])]


def rates_view(labels: Sequence[LabelRates]) -> Table:
    """Accuracy of both models by the small model's answer."""
    rows = (
        {
            "the small model answers": rates.label,
            "it is right": percent(rates.small_accuracy),
            "the large model is right": percent(rates.large_accuracy),
            "both add": f"{rates.added:+.2f}",
        }
        for rates in labels
    )
    return table("What the gate knows of labels, from validate rows", rows)


def _contributions(reasons: Reasons) -> Table | str:
    added = (*(part.contribution for part in reasons.contributions), reasons.rest)
    if reasons.base and all(abs(part) < _SHOWN for part in added):
        return "all of it by the means of the classes: on top of these, no curve adds anything here"
    rows = [(part.name, part.word, f"{part.value:+.2f}", part.contribution) for part in reasons.contributions]
    others = f"{reasons.num_others} others, {percent(reasons.unlisted)} of all by size"
    rows += [(others, "", "", reasons.rest), ("baseline", "", "", reasons.baseline)]
    if reasons.base:
        rows.append(("class means, which no curve shows", "", "", reasons.base))
    columns = "curve of", "most by the word", "value"
    return table("", ({**dict(zip(columns, row[:3], strict=True)), "contribution": f"{row[3]:+.3f}"} for row in rows))


def _shortened(text: str, length: int = 100) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
