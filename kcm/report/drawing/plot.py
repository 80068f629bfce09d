"""A plot with two axes, drawn as SVG: scales, ticks, grid, the marks that figures put on it, and their legend.

Colours come from the page's style sheet through class names, so that one drawing serves light, dark and print.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from kcm.metrics.routing import thinned
from kcm.report.drawing.markup import Html, element
from kcm.report.text.formats import known

Shape = Literal["circle", "diamond"]
Point = tuple[float, float]

RIGHT, TOP, BOTTOM = 18.0, 34.0, 50.0  # room around the plotting area; the figure chooses the room on the left
MAX_POINTS = 400


@dataclass(frozen=True)
class Axis:
    """A linear scale from `low` to `high` with labelled ticks."""

    label: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]

    @classmethod
    def over(cls, label: str, values: Sequence[float], text: Callable[[float], str], padding: float = 0.06) -> Axis:
        """An axis around `values`, which must not be empty, with round ticks written by `text`."""
        low, high = min(values), max(values)
        scale = max(abs(low), abs(high))
        alike = high - low <= 1e-9 * scale  # too close for floats to hold ticks between them
        room = max(scale * padding, 1e-3) if alike else (high - low) * padding
        low, high = low - room, high + room
        return cls(label, low, high, [(tick, text(tick)) for tick in round_ticks(low, high)])

    def share(self, value: float) -> float:
        """Where `value` lies between the ends, 0 to 1; what lies outside is drawn at the nearer end."""
        return (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)


@dataclass
class Plot:
    """Marks drawn in order on a canvas of `width` x `height` units, and the legend that explains them."""

    x_axis: Axis
    y_axis: Axis
    width: float = 520.0
    height: float = 340.0
    left: float = 62.0
    _marks: list[Html] = field(default_factory=list)
    _legend: dict[str, Html] = field(default_factory=dict)

    def x(self, value: float) -> float:
        """Horizontal position of `value`."""
        return self.left + self.x_axis.share(value) * (self.width - self.left - RIGHT)

    def y(self, value: float) -> float:
        """Vertical position of `value`."""
        return self.height - BOTTOM - self.y_axis.share(value) * (self.height - TOP - BOTTOM)

    def line(self, points: Sequence[Point], style: str) -> None:
        """A line through `points`, of which at most `MAX_POINTS` are drawn."""
        drawn = [points[position] for position in thinned(len(points), MAX_POINTS)]
        path = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in drawn)
        self._marks.append(element("polyline", points=path, class_=f"line {style}"))

    def segment(self, start: Point, end: Point, style: str) -> None:
        """A straight line between two points."""
        self._marks.append(_line(self.x(start[0]), self.y(start[1]), self.x(end[0]), self.y(end[1]), style))

    def across(self, y: float, style: str) -> None:
        """A horizontal rule over the whole width."""
        self.segment((self.x_axis.low, y), (self.x_axis.high, y), style)

    def upright(self, x: float, style: str) -> None:
        """A vertical rule over the whole height."""
        self.segment((x, self.y_axis.low), (x, self.y_axis.high), style)

    def band(self, start: float, end: float, style: str) -> None:
        """A filled band over the whole height, from x = `start` to `end`."""
        left, right, top = self.x(start), self.x(end), self.y(self.y_axis.high)
        bottom = self.y(self.y_axis.low)
        self._marks.append(
            element("rect", x=left, y=top, width=right - left, height=bottom - top, class_=f"band {style}")
        )

    def mark(self, point: Point, shape: Shape, style: str, title: str, size: float = 4.5) -> None:
        """A point; `title` is shown while the pointer rests on it."""
        self._marks.append(_marker(self.x(point[0]), self.y(point[1]), shape, style, size, title))

    def explain(self, words: str, style: str, kind: Shape | Literal["line", "band"]) -> None:
        """Add an entry to the legend, once, with a swatch drawn as in the plot."""
        self._legend[words] = element("li", _swatch(style, kind), words)

    def legend(self) -> Html:
        """The legend as a list."""
        return element("ul", *self._legend.values(), class_="legend")

    def svg(self, description: str) -> Html:
        """The drawing, frame first and marks above it; `description` is its text alternative."""
        box = f"0 0 {self.width:g} {self.height:g}"
        return element(
            "svg", *self._frame(), *self._marks, class_="plot", viewBox=box, role="img", aria_label=description
        )

    def _frame(self) -> list[Html]:
        bottom, right = self.height - BOTTOM, self.width - RIGHT
        grid = [_line(self.left, self.y(tick), right, self.y(tick), "grid") for tick, _ in self.y_axis.ticks]
        y_ticks = [_text(word, self.left - 9, self.y(tick), "tick y") for tick, word in self.y_axis.ticks]
        x_ticks = [_text(word, self.x(tick), bottom + 19, "x") for tick, word in self.x_axis.ticks]
        labels = [
            _text(self.x_axis.label, (self.left + right) / 2, self.height - 6, "x"),
            _text(self.y_axis.label, 2, 14, "y"),
        ]
        return [*grid, _line(self.left, bottom, right, bottom, "base"), *y_ticks, *x_ticks, *labels]


def round_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers within `low .. high`, in steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def drawable(xs: Sequence[float | None], ys: Sequence[float | None]) -> list[Point]:
    """Points of which both coordinates can be drawn, in order of x."""
    return sorted((x, y) for x, y in zip(xs, ys, strict=True) if known(x) and known(y))


def _swatch(style: str, kind: Shape | Literal["line", "band"]) -> Html:
    if kind == "line":
        drawing, width = _line(1, 6, 23, 6, style), 24
    elif kind == "band":
        drawing, width = element("rect", width=20, height=12, rx=3, class_=f"band {style}"), 20
    else:
        drawing, width = _marker(7, 6, kind, style, 4.5), 14
    return element("svg", drawing, viewBox=f"0 0 {width} 12", width=width, height=12, aria_hidden="true")


def _marker(x: float, y: float, shape: Shape, style: str, size: float, title: str = "") -> Html:
    tip = element("title", title) if title else None
    if shape == "circle":
        return element("circle", tip, cx=x, cy=y, r=size, class_=f"mark {style}")
    reach = 1.3 * size  # about the area of the circle
    corners = f"{x:.1f},{y - reach:.1f} {x + reach:.1f},{y:.1f} {x:.1f},{y + reach:.1f} {x - reach:.1f},{y:.1f}"
    return element("polygon", tip, points=corners, class_=f"mark {style}")


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> Html:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=f"line {style}")


def _text(words: str, x: float, y: float, style: str) -> Html:
    return element("text", words, x=x, y=y, class_=style)
