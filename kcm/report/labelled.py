"""What the page of a labelled table shows: the promise, the money, rows by label, curves, and rows to look at.

Shapes: U texts, of one or more rows each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kcm.report.chart import Chart, scale
from kcm.report.formats import number, plural

if TYPE_CHECKING:  # scikit-learn, which a served page does not need
    from kcm.labelling.certificate import TableCertificate, TestedDraw
    from kcm.labelling.label import LabelledTable

NUM_SHOWN = 20  # rows of either list
MAX_CHARS = 280  # of a text
FLAT = 0.005  # a curve that changes the log-odds by less has no effect


@dataclass(frozen=True)
class LabelCounts:
    """Rows of a label, by who gave it; the large model bought none of the `failed` ones."""

    label: str
    small: int
    llm: int
    failed: int

    @property
    def rows(self) -> int:
        """All of them."""
        return self.small + self.llm + self.failed


@dataclass(frozen=True)
class ShownRow:
    """A row to look at: its number in the table, from 1, and the small model's answer with its probability.

    `llm` is the large model's answer, empty if it was not asked.
    """

    row: int
    text: str
    small: str
    probability: float
    llm: str = ""


@dataclass(frozen=True)
class LabelPage:
    """The numbers of one page; money is in dollars, None if no price is known. `flat` are signals without effect.

    `differing` are some of the `num_differing` texts whose answers were bought after the small model was fixed, of
    `num_compared`, and to which it would have given another answer.
    """

    name: str
    certificate: TableCertificate
    cost: float
    saved: float | None
    num_empty: int
    labels: tuple[LabelCounts, ...]
    curves: tuple[Chart, ...]
    flat: tuple[str, ...]
    kept: tuple[ShownRow, ...]
    num_kept: int
    differing: tuple[ShownRow, ...]
    num_differing: int
    num_compared: int
    bundle: str = ""

    @classmethod
    def of(cls, found: LabelledTable, name: str, bundle: str = "") -> LabelPage:
        """The page of a finished job on the table `name`; `bundle` is the name of its bundle, empty without one."""
        result, texts, certificate = found.result, found.texts, found.certificate
        kept = np.flatnonzero(~result.bought_U & ~result.failed_U)
        chosen = np.random.default_rng(certificate.seed).permutation(kept)[:NUM_SHOWN]
        compared = result.bought_U & ~result.taught_U
        other = np.flatnonzero(compared & (result.guess.answer_U != result.answer_U))
        surest = other[np.argsort(result.guess.wrong_U[other], kind="stable")][:NUM_SHOWN]
        rows_U = texts.first_rows() + 1
        charts, flat = curves(found)

        def shown(unit: int, llm: str = "") -> ShownRow:
            small = found.labels.names[result.guess.answer_U[unit]]
            sure = 1 - float(result.guess.wrong_U[unit])
            return ShownRow(int(rows_U[unit]), _shortened(texts.texts[unit]), small, sure, llm)

        return cls(
            name=name,
            certificate=certificate,
            cost=found.cost,
            saved=_saved(found),
            num_empty=texts.num_empty,
            labels=_counts(found),
            curves=charts,
            flat=flat,
            kept=tuple(shown(unit) for unit in sorted(chosen.tolist())),
            num_kept=len(kept),
            differing=tuple(shown(unit, found.labels.names[result.answer_U[unit]]) for unit in surest.tolist()),
            num_differing=len(other),
            num_compared=int(compared.sum()),
            bundle=bundle,
        )


def curves(found: LabelledTable) -> tuple[tuple[Chart, ...], tuple[str, ...]]:
    """A chart for each signal of the judge, the strongest first, on one scale; and the signals without effect."""
    if found.judge is None:
        return (), ()
    signals, drawn = found.judge.curves.signals, found.judge.curves.drawn()
    limits = min(float(added.min()) for _, added in drawn), max(float(added.max()) for _, added in drawn)
    charts, flat = [], []
    for place in sorted(range(len(drawn)), key=lambda place: -float(np.ptp(drawn[place][1]))):
        (points, added), signal = drawn[place], signals[place]
        if np.ptp(added) < FLAT:
            flat.append(signal.name)
            continue
        chart = Chart(
            signal.name.capitalize(),
            "",
            scale(signal.name, "number"),
            scale("added to the log-odds", "number", limits),
            sentence=f"{signal.meaning}.",
        )
        chart.draw("dashed", "large", [{"y": 0.0}])
        chart.draw("line", "kcm", [{"x": x, "y": y} for x, y in zip(points.tolist(), added.tolist(), strict=True)])
        charts.append(chart)
    return tuple(charts), tuple(flat)


def reading_of(draw: TestedDraw) -> str:
    """What a draw says, for people."""
    if not draw.drawn:
        return f"The small model answers {plural(draw.kept, 'text')}; nothing was drawn, so none of them was checked."
    first = (
        f"The {draw.ranked:,} texts of which the small model was surest could be kept. {draw.drawn:,} of them were"
        f" drawn at random and bought: the small model's answer differs from the LLM's in {draw.wrong:,}."
    )
    if draw.kept == draw.ranked and draw.wrong > draw.afforded:
        return f"{first} The money allowed no more, so all are kept, and the bound counts these errors."
    allowed = f"Of the drawn texts, {plural(draw.afforded, 'error')} may lie in the part that is kept"
    if draw.kept == draw.ranked:
        return f"{first} {allowed}, so all {draw.ranked:,} are kept."
    return f"{first} {allowed}, so the first {draw.kept:,} are kept and the LLM answers the others."


def _counts(found: LabelledTable) -> tuple[LabelCounts, ...]:
    """Rows by label, the most frequent first; labels without rows too."""
    result, copies_U = found.result, found.texts.copies_U
    small_U = ~result.bought_U & ~result.failed_U
    columns = [
        np.bincount(result.answer_U, copies_U * some_U, minlength=len(found.labels.names)).astype(int).tolist()
        for some_U in (small_U, result.bought_U, result.failed_U)
    ]
    counts = [LabelCounts(*each) for each in zip(found.labels.names, *columns, strict=True)]
    return tuple(sorted(counts, key=lambda each: -each.rows))


def _saved(found: LabelledTable) -> float | None:
    """The expected price of the answers that were not bought; None if no price is known."""
    if found.estimate is None or not found.estimate.calls or not found.estimate.currency:
        return None
    price = found.estimate.currency / found.estimate.calls
    return price * (found.certificate.texts - found.certificate.bought)


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]}…"


def percent_of(part: int, whole: int) -> str:
    """12 of 48 as `25%`; an en dash of nothing."""
    return f"{number(round(100 * part / whole))}%" if whole else "–"
