"""Accuracy against call rate: what every threshold would do on the test split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kcm.report.drawing.markup import Html
from kcm.report.drawing.plot import Axis, Plot, drawable
from kcm.report.figures.frame import SHAPES, empty, figure, percent_tick, share_axis
from kcm.report.text import words
from kcm.report.text.formats import interval, is_interval, known, percent
from kcm.report.text.reading import NAMES, Numbers, Who, collaborators, deployed

TITLE = "Accuracy against calls to the large model"


def frontier(
    frontiers: Mapping[str, Mapping[str, Sequence[float]]], result: Numbers, names: Mapping[Who, str] = NAMES
) -> Html:
    """Every collaborator's frontier with its deployed point, the large model alone, and the oracle where given.

    `frontiers` holds columns `call_rate` and `accuracy` per collaborator, `names` what these are called. The small
    model alone is the left end.
    """
    columns = {who: frontiers[who] for who in names if who in frontiers}
    curves = {who: drawable(column["call_rate"], column["accuracy"]) for who, column in columns.items()}
    if not any(curves.values()):
        return empty(TITLE, "No frontier was measured.")
    overall = {who: c["overall"] for who, c in collaborators(result).items()}
    _, first = deployed(result)
    large, routing = first["overall"].get("large_accuracy"), first.get("routing") or {}
    oracle = routing.get("oracle_call_rate"), routing.get("oracle_accuracy")

    ends = [bound for row in overall.values() for bound in row.get("cascade_accuracy_interval") or ()]
    heights = [*(y for curve in curves.values() for _, y in curve), *ends, large, oracle[1]]
    y_axis = Axis.over("accuracy", [y for y in heights if known(y)], percent_tick)
    plot = Plot(share_axis("call rate: share of inputs sent to the large model"), y_axis)
    if known(large):
        plot.across(large, "large dashed")
        plot.explain("large alone", "large dashed", "line")
    for who, curve in curves.items():
        plot.line(curve, who)
        plot.explain(f"{names[who]}, any threshold", who, "line")
    for who, row in overall.items():
        _mark(plot, who, names[who], row)
    if known(oracle[0]) and known(oracle[1]):
        tip = f"oracle router: {percent(oracle[1])} at a call rate of {percent(oracle[0])}"
        plot.mark((oracle[0], oracle[1]), "circle", "large hollow", tip)
        plot.explain("oracle router", "large hollow", "circle")
    return figure(TITLE, words.frontier(result, names), plot)


def _mark(plot: Plot, who: Who, name: str, row: Numbers) -> None:
    call_rate, accuracy = row.get("call_rate"), row.get("cascade_accuracy")
    bounds = row.get("cascade_accuracy_interval")
    if not (known(call_rate) and known(accuracy)):
        return
    if is_interval(bounds):
        plot.segment((call_rate, bounds[0]), (call_rate, bounds[1]), f"{who} whisker")
    tip = f"{name} deployed: {percent(accuracy)} ({interval(bounds)}) at a call rate of {percent(call_rate)}"
    plot.mark((call_rate, accuracy), SHAPES[who], who, tip, size=6)
    plot.explain(f"{name} deployed, 95% interval", who, SHAPES[who])
