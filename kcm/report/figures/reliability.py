"""Reliability diagram: how often the small side is right, given how sure it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kcm.report.drawing.markup import Html
from kcm.report.drawing.plot import Axis, Plot, drawable
from kcm.report.figures.frame import SHAPES, empty, figure, percent_tick
from kcm.report.text import words
from kcm.report.text.formats import percent
from kcm.report.text.reading import NAMES, Numbers, Who, filled_bins

TITLE = "How far confidence can be trusted"


def reliability(bins: Mapping[str, Sequence[Numbers]], names: Mapping[Who, str] = NAMES) -> Html:
    """Accuracy against confidence per bin, beside the diagonal; the area of a mark is its share of the rows."""
    found = {who: filled for who in names if (filled := filled_bins(bins.get(who, ())))}
    if not found:
        return empty(TITLE, "Confidence was not compared with accuracy.")
    every = [b for filled in found.values() for b in filled]
    x_axis = Axis.over("confidence of the judge", [*(b["confidence"] for b in every), 1.0], percent_tick)
    y_axis = Axis.over(
        "accuracy", [*(b["accuracy"] for b in every), min(b["confidence"] for b in every), 1.0], percent_tick
    )
    plot = Plot(x_axis, y_axis)
    start = max(x_axis.low, y_axis.low)
    plot.segment((start, start), (1.0, 1.0), "large dashed")
    plot.explain("as sure as right", "large dashed", "line")
    for who, filled in found.items():
        num_rows = sum(b["count"] for b in filled)
        plot.line(drawable([b["confidence"] for b in filled], [b["accuracy"] for b in filled]), f"{who} faint")
        plot.explain(names[who], f"{who} soft", SHAPES[who])
        for b in filled:
            share = b["count"] / num_rows
            sure, right = percent(b["confidence"]), percent(b["accuracy"])
            tip = f"{names[who]}, {percent(share)} of the rows: {sure} sure, {right} right"
            plot.mark((b["confidence"], b["accuracy"]), SHAPES[who], f"{who} soft", tip, size=3 + 9 * share**0.5)
    return figure(TITLE, words.reliability(bins, names), plot)
