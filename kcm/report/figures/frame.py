"""What the figures share: the `<figure>` around a plot, the usual axes, and a plot with one row per name."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from kcm.report.drawing.markup import Html, element
from kcm.report.drawing.plot import Axis, Plot, Shape
from kcm.report.text.formats import number, points
from kcm.report.text.reading import Who

SHAPES: dict[Who, Shape] = {"kcm": "circle", "mcm": "diamond"}
_HEIGHT, _ROW_HEIGHT, _LABEL_LENGTH, _LABEL_ROOM = 340.0, 28.0, 15, 160.0


def figure(title: str, sentence: str, plot: Plot) -> Html:
    """A figure with its title, its sentence, which is also the text alternative, its legend and its drawing."""
    style = "tall" if plot.height > _HEIGHT else None
    drawing = plot.svg(f"{title}. {sentence}")
    return element("figure", _caption(title, sentence), plot.legend(), drawing, class_=style)


def empty(title: str, reason: str) -> Html:
    """The place of a figure that cannot be drawn, and why."""
    return element("figure", _caption(title, reason), element("p", "–", class_="empty", aria_hidden="true"))


def row_plot(names: Sequence[str], x_axis: Axis) -> Plot:
    """A plot with one row per name, the first on top; long names are cut."""
    ticks = [(float(len(names) - 1 - index), _short(name)) for index, name in enumerate(names)]
    y_axis = Axis("", -0.5, len(names) - 0.5, ticks)
    return Plot(x_axis, y_axis, height=max(_HEIGHT, 84 + _ROW_HEIGHT * len(names)), left=_LABEL_ROOM)


def lane(index: int, num_rows: int, who: Who, present: Collection[Who]) -> float:
    """Height of a collaborator's mark inside row `index`: one above the other where there are two."""
    shift = 0.0 if len(present) == 1 else 0.2
    return num_rows - 1 - index + (shift if who == "kcm" else -shift)


def share_axis(label: str) -> Axis:
    """From nothing to all, in percent."""
    return Axis(label, -0.02, 1.02, [(tick / 5, f"{20 * tick}%") for tick in range(6)])


def percent_tick(value: float) -> str:
    """0.925 as `92.5%`."""
    return f"{number(round(100 * value, 6))}%"


def point_tick(value: float) -> str:
    """0.015 as `1.5`, in percentage points."""
    return number(round(100 * value, 6))


def signed_point_tick(value: float) -> str:
    """0.015 as `+1.5`, in percentage points."""
    return points(value, 2).rstrip("0").rstrip(".") if round(value, 6) else "0"


def _caption(title: str, sentence: str) -> Html:
    return element("figcaption", element("h3", title), element("p", sentence))


def _short(name: str) -> str:
    return name if len(name) <= _LABEL_LENGTH else f"{name[: _LABEL_LENGTH - 1]}…"
