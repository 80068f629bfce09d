"""What the page of a labelled table shows: the promise, the money, rows by label, curves, and rows to look at.

Shapes: U texts, of one or more rows each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kcm.report.chart import Chart, drawing
from kcm.report.formats import number
from kcm.report.page import render

if TYPE_CHECKING:  # scikit-learn, which a served page does not need
    from kcm.labelling.certificate import TableCertificate
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


def render_labelled(page: LabelPage) -> str:
    """A labelled table as HTML; text from data is escaped."""
    return render("labelled", page=page, percent_of=percent_of)


def curves(table: LabelledTable) -> tuple[tuple[Chart, ...], tuple[str, ...]]:
    """A chart for each signal of the judge, the strongest first, on one scale; and the signals without effect."""
    if table.judge is None:
        return (), ()
    drawn = list(zip(table.judge.curves.signals, table.judge.curves.drawn(), strict=True))
    drawn.sort(key=lambda curve: -float(np.ptp(curve[1][1])))
    ends = [end(added) for _, (_, added) in drawn for end in (np.min, np.max)]
    charts, flat = [], []
    for signal, (points, added) in drawn:
        if np.ptp(added) < FLAT:
            flat.append(signal.name)
            continue
        rows = [{"x": x, "y": y} for x, y in zip(points.tolist(), added.tolist(), strict=True)]
        first, last = rows[0]["x"], rows[-1]["x"]
        limits = [{"x": first, "y": float(end)} for end in (min(ends), max(ends))]
        zero = [{"x": x, "y": 0.0} for x in (first, last)]
        svg = drawing("curve", limits=limits, zero=zero, curve=rows)
        charts.append(Chart(signal.name.capitalize(), f"{signal.meaning[:1].upper()}{signal.meaning[1:]}.", svg))
    return tuple(charts), tuple(flat)


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
