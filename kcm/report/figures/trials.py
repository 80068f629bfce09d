"""What tuning found: every trial's two objectives, and the trials that no other beats in both."""

from __future__ import annotations

from collections.abc import Sequence

from kcm.report.drawing.markup import Html
from kcm.report.drawing.plot import Axis, Plot, drawable
from kcm.report.figures.frame import SHAPES, empty, figure, percent_tick
from kcm.report.text import words
from kcm.report.text.formats import number, percent
from kcm.report.text.reading import NAMES, Numbers, Who, is_scored

TITLE = "What tuning found"


def trials(tried: Sequence[Numbers]) -> Html:
    """Area under the frontier against calls saved; trials without both are counted in the sentence."""
    scored = [trial for trial in tried if is_scored(trial)]
    if not scored:
        return empty(TITLE, f"None of {len(tried)} trials has a score." if tried else "Tuning did not run.")
    x_axis = Axis.over("calls saved", [trial["calls_saved"] for trial in scored], percent_tick)
    y_axis = Axis.over("area under the frontier", [trial["area"] for trial in scored], number)
    plot = Plot(x_axis, y_axis)
    for who in NAMES:
        own = [trial for trial in scored if trial["collaborator"] == who]
        if own:
            _draw(plot, who, own)
    return figure(TITLE, words.trials(tried), plot)


def _draw(plot: Plot, who: Who, own: Sequence[Numbers]) -> None:
    front = [trial for trial in own if trial["pareto"]]
    plot.line(drawable([trial["calls_saved"] for trial in front], [trial["area"] for trial in front]), f"{who} faint")
    plot.explain(f"{NAMES[who]}, Pareto front", who, SHAPES[who])
    if len(front) < len(own):
        plot.explain(f"{NAMES[who]}, other trials", f"{who} hollow soft", SHAPES[who])
    for trial in sorted(own, key=lambda trial: bool(trial["pareto"])):  # the front is drawn above the others
        saved, area = percent(trial["calls_saved"]), number(trial["area"])
        tip = f"{NAMES[who]}, trial {trial['number']}: {saved} saved, area {area}"
        style = who if trial["pareto"] else f"{who} hollow soft"
        plot.mark((trial["calls_saved"], trial["area"]), SHAPES[who], style, tip)
