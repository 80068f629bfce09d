"""What became of each task: its accuracy when it was learned, and after the last task."""

from __future__ import annotations

from collections.abc import Sequence

from kcm.report.drawing.markup import Html
from kcm.report.drawing.plot import Axis
from kcm.report.figures.frame import SHAPES, empty, figure, lane, percent_tick, row_plot
from kcm.report.text import words
from kcm.report.text.formats import percent
from kcm.report.text.reading import NAMES, Numbers, collaborators, first_and_last

TITLE = "What became of each task"


def forgetting(result: Numbers, names: Sequence[str]) -> Html:
    """R[j, j] (hollow) joined with R[T, j] (filled), per task and collaborator; `names` in the order of R."""
    found = {who: first_and_last(c) for who, c in collaborators(result).items()}
    values = [value for ends in found.values() for pair in ends if pair for value in pair]
    if len(names) < 2 or not values:
        return empty(TITLE, "Forgetting needs at least two tasks, and an accuracy for each.")
    plot = row_plot(names, Axis.over("accuracy of the small model", values, percent_tick))
    for who, ends in found.items():
        plot.explain(f"{NAMES[who]} when learned", f"{who} hollow", SHAPES[who])
        plot.explain(f"{NAMES[who]} after the last task", who, SHAPES[who])
        for index, pair in enumerate(ends):
            if pair is None:
                continue
            y, (first, last) = lane(index, len(names), who, found), pair
            plot.segment((first, y), (last, y), f"{who} whisker")
            plot.mark((first, y), SHAPES[who], f"{who} hollow", f"{names[index]}, learned: {percent(first)}", size=5)
            plot.mark((last, y), SHAPES[who], who, f"{names[index]}, at the end: {percent(last)}")
    return figure(TITLE, words.forgetting(result, names), plot)
