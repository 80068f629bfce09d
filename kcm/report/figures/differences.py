"""What the cascade gains or loses against the large model alone, with all tasks together and task by task."""

from __future__ import annotations

from kcm.report.drawing.markup import Html
from kcm.report.drawing.plot import Axis, Plot
from kcm.report.figures.frame import SHAPES, empty, figure, lane, row_plot, signed_point_tick
from kcm.report.text import words
from kcm.report.text.formats import is_interval, known, points, points_interval
from kcm.report.text.reading import NAMES, Numbers, Who, certificate_of, collaborators, outcomes

TITLE = "Difference to the large model alone"


def differences(result: Numbers) -> Html:
    """Paired differences (cascade minus large) with their intervals, beside zero and the loss that is allowed."""
    rows, present = outcomes(result), collaborators(result)
    ends = [end for _, row in rows for outcome in row.values() for end in _ends(outcome)]
    if not ends:
        return empty(TITLE, "No paired difference was measured.")
    epsilon = certificate_of(result).get("epsilon")
    limits = [-epsilon] if known(epsilon) else []
    x_axis = Axis.over("cascade minus large, points", [*ends, *limits, 0.0], signed_point_tick)
    plot = row_plot([name for name, _ in rows], x_axis)
    plot.upright(0.0, "large")
    for who in present:
        plot.explain(f"{NAMES[who]}, 95% interval", who, SHAPES[who])
    for limit in limits:
        plot.upright(limit, "limit dashed")
        plot.explain(f"allowed loss, {words.epsilon_words(certificate_of(result))}", "limit dashed", "line")
    for index, (name, row) in enumerate(rows):
        for who, outcome in row.items():
            _interval(plot, name, who, outcome, lane(index, len(rows), who, present))
    return figure(TITLE, words.differences(result), plot)


def _ends(outcome: Numbers) -> list[float]:
    bounds = outcome.get("difference_interval")
    ends = [outcome.get("difference"), *(bounds if is_interval(bounds) else ())]
    return [end for end in ends if known(end)]


def _interval(plot: Plot, name: str, who: Who, outcome: Numbers, y: float) -> None:
    difference, bounds = outcome.get("difference"), outcome.get("difference_interval")
    if is_interval(bounds):
        plot.segment((bounds[0], y), (bounds[1], y), f"{who} whisker")
    if known(difference):
        tip = f"{name}, {NAMES[who]}: {points(difference)} points ({points_interval(bounds)})"
        plot.mark((difference, y), SHAPES[who], who, tip)
