"""What the page of a labelled table shows: the promise, the money, rows by label, curves, and rows to look at.

Shapes: U texts, of one or more rows each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kcm.labelling.certificate import at_least
from kcm.report.figures import Chart, drawing
from kcm.report.formats import MISSING, percent
from kcm.report.page import render

if TYPE_CHECKING:  # scikit-learn, which a served page does not need
    from kcm.labelling.label import LabelledTable

NUM_SHOWN = 20  # rows of either list
MAX_CHARS = 280  # of a text
FLAT = 0.005  # a curve that changes the log-odds by less has no effect


@dataclass(frozen=True)
class LabelCounts:
    """Rows of a label, by the model that gave it; `failed` rows got no answer.

    Under the certificate the LLM would give the label to `fewest` to `most` rows.
    """

    label: str
    small: int
    llm: int
    failed: int
    fewest: int
    most: int

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
    llm: str


def render_labelled(table: LabelledTable, name: str, bundle: str = "") -> str:
    """The page of a finished job on the table `name`, as HTML; text from data is escaped.

    `bundle` is the name of its bundle, empty without one. Money is in dollars, None if no price is known. Of the texts
    whose answers were bought after the small model was fixed, the page shows some to which it would have given another
    answer.
    """
    result, certificate = table.result, table.certificate
    kept_K = np.flatnonzero(~result.bought_U & ~result.failed_U)
    drawn = np.random.default_rng(certificate.seed).permutation(kept_K)[:NUM_SHOWN]
    compared_U = result.bought_U & ~result.taught_U
    differing_D = np.flatnonzero(compared_U & (result.guess.answer_U != result.answer_U))
    surest = differing_D[np.argsort(result.guess.wrong_U[differing_D], kind="stable")][:NUM_SHOWN]
    return render(
        "labelled",
        name=name,
        bundle=bundle,
        certificate=certificate,
        cost=table.cost,
        saved=_saved(table),
        num_empty=table.texts.num_empty,
        labels=label_counts(table),
        curves=curves(table),
        kept=shown_rows(table, sorted(drawn.tolist())),
        num_kept=len(kept_K),
        differing=shown_rows(table, surest.tolist()),
        num_differing=len(differing_D),
        num_compared=int(compared_U.sum()),
        percent_of=percent_of,
        at_least=at_least,
    )


def curves(table: LabelledTable) -> list[Chart]:
    """A chart for each signal of the judge that has an effect, the strongest first, on one scale."""
    if table.judge is None:
        return []
    drawn = zip(table.judge.curves.signals, table.judge.curves.drawn(), strict=True)
    strongest = sorted(drawn, key=lambda curve: -float(np.ptp(curve[1][1])))
    ends = [end(added) for _, (_, added) in strongest for end in (np.min, np.max)]
    charts = []
    for signal, (points, added) in strongest:
        if np.ptp(added) < FLAT:
            break
        rows = [{"x": x, "y": y} for x, y in zip(points.tolist(), added.tolist(), strict=True)]
        first, last = rows[0]["x"], rows[-1]["x"]
        limits = [{"x": first, "y": float(end)} for end in (min(ends), max(ends))]
        zero = [{"x": x, "y": 0.0} for x in (first, last)]
        svg = drawing("curve", limits=limits, zero=zero, curve=rows)
        charts.append(Chart(signal.name.capitalize(), f"{signal.meaning[:1].upper()}{signal.meaning[1:]}.", svg))
    return charts


def shown_rows(table: LabelledTable, units: list[int]) -> list[ShownRow]:
    """Rows of these texts, with the large model's answer if it was bought."""
    result, names = table.result, table.labels.names
    first_U = table.texts.first_rows() + 1
    rows = []
    for unit in units:
        text, llm = table.texts.texts[unit], names[result.answer_U[unit]] if result.bought_U[unit] else ""
        text = text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]}…"
        probability = 1 - float(result.guess.wrong_U[unit])
        rows.append(ShownRow(int(first_U[unit]), text, names[result.guess.answer_U[unit]], probability, llm))
    return rows


def label_counts(table: LabelledTable) -> list[LabelCounts]:
    """Rows by label, the most frequent first; labels without rows too."""
    result, names = table.result, table.labels.names
    sources_U = (~result.bought_U & ~result.failed_U, result.bought_U, result.failed_U)
    columns = [
        np.bincount(result.answer_U, table.texts.copies_U * source_U, minlength=len(names)).astype(int).tolist()
        for source_U in sources_U
    ]
    rows_C, unsure_C, differ = np.sum(columns, 0), np.add(columns[0], columns[2]), table.certificate.most_differ
    fewest_C = rows_C - np.minimum(unsure_C, differ)
    most_C = rows_C + np.minimum(unsure_C.sum() - unsure_C, differ)
    counts = map(LabelCounts, names, *columns, fewest_C.tolist(), most_C.tolist())
    return sorted(counts, key=lambda counts: -counts.rows)


def _saved(table: LabelledTable) -> float | None:
    """The expected price of the answers that were not bought; None if no price is known."""
    if table.estimate is None or not table.estimate.calls or not table.estimate.currency:
        return None
    price = table.estimate.currency / table.estimate.calls
    return price * (table.certificate.texts - table.certificate.bought)


def percent_of(part: int, whole: int) -> str:
    """12 of 48 as `25%`; an en dash of nothing."""
    return percent(part / whole, 0) if whole else MISSING
