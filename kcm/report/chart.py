"""A figure with two axes as Vega-Lite, drawn to an SVG that needs no script, no inline style and no network.

Colours are the page's own variables, so that one drawing serves light, dark and print. Text stays text, and what a mark
says is its label for screen readers and its tip under the pointer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import vl_convert
from markupsafe import Markup

from kcm.metrics.routing import thinned
from kcm.report.formats import known

Form = Literal["percent", "number"]
Kind = Literal[
    "line",
    "dashed",
    "circle",
    "diamond",
    "square",
    "hollow circle",
    "band",
    "cell",
    "text",
]

MAX_POINTS = 400  # of a line
_FORMS: dict[Form, str] = {
    "percent": "format(100 * datum.value, '.4~g') + '%'",
    "number": "format(datum.value, '.4~g')",
}
_WIDTH, _HEIGHT, _ROW_HEIGHT = 520, 340, 30
_TEXT = {"labelColor": "var(--quiet)", "titleColor": "var(--quiet)", "labelFontSize": 12, "titleFontSize": 12}
_LINES = {"gridColor": "var(--hair)", "domainColor": "var(--large)", "tickColor": "var(--hair)"}
_CONFIG = {
    "background": None,
    "view": {"stroke": None},
    "axis": {**_TEXT, **_LINES, "titleFontWeight": "normal"},
    "axisX": {"grid": False, "titlePadding": 10},
    "axisY": {"titleAngle": 0, "titleAlign": "left", "titleX": -42, "titleY": -14},  # above the axis
}
_CHANNELS: dict[str, dict[str, Any]] = {
    "size": {"type": "quantitative", "scale": None},
    "shade": {"type": "quantitative", "scale": {"domain": [0, 1], "range": [0.08, 0.5]}, "legend": None},
    "text": {"type": "nominal"},
    "tip": {"type": "nominal"},
}
_NAMED = {"shade": "opacity", "tip": "description"}
_OPENING, _MARK = re.compile(r"^<svg[^>]*>"), re.compile(r'(<(path|text) aria-label="([^"]*)"[^>]*?)(?:/>|>)')


def scale(title: str, form: Form, domain: tuple[float, float] | None = None, **axis: Any) -> dict[str, Any]:
    """An axis of numbers; without a `domain` around what is drawn."""
    limits: dict[str, Any] = {"zero": False, "padding": 12} if domain is None else {"domain": domain, "clamp": True}
    return {
        "type": "quantitative",
        "title": title,
        "scale": limits,
        "axis": {"labelExpr": _FORMS[form], "tickCount": 5, **axis},
    }


def rows_scale(names: Sequence[str]) -> dict[str, Any]:
    """An axis with a place per name, in this order; long names are cut."""
    axis = {"labelLimit": 130, "labelAngle": 0, "ticks": False, "domain": False}
    return {"type": "nominal", "title": None, "sort": None, "scale": {"domain": list(names)}, "axis": axis}


@dataclass
class Chart:
    """Layers of marks, each with the words that explain it in the legend; `reason` is shown where there are none."""

    title: str
    reason: str
    x: Mapping[str, Any]
    y: Mapping[str, Any]
    num_rows: int = 0
    sentence: str = ""
    layers: list[dict[str, Any]] = field(default_factory=list)
    legend: dict[str, tuple[str, Kind]] = field(default_factory=dict)

    def draw(self, kind: Kind, tone: str, rows: Sequence[Mapping[str, Any]], words: str = "", **mark: Any) -> None:
        """Add marks, whose channels are the keys of `rows`: x, y, x2, y2, tip, size, shade, text.

        A rule with one of x and y spans the other. Rows with a number that is not known are left out. `tone` names a
        colour of the page.
        """
        rows = [row for row in rows if all(isinstance(value, str) or known(value) for value in row.values())]
        if not rows:
            return
        if kind == "line":
            rows = [rows[index] for index in thinned(len(rows), MAX_POINTS)]
        channels = {"x": self.x, "y": self.y, **_CHANNELS}
        encoding = {_NAMED.get(key, key): {"field": key, **channels.get(key, {})} for key in rows[0]}
        drawn = {**_mark(kind, f"var(--{tone})", rows[0]), **mark, "aria": "tip" in rows[0]}
        self.layers.append({"data": {"values": list(rows)}, "mark": drawn, "encoding": encoding})
        if words:
            self.legend[words] = tone, kind

    @property
    def _height(self) -> int:
        return max(_HEIGHT, 90 + _ROW_HEIGHT * self.num_rows)

    @property
    def svg(self) -> Markup | None:
        """The drawing; None where there is nothing to draw."""
        if not self.layers:
            return None
        size = {"width": _WIDTH, "height": self._height, "autosize": {"type": "fit", "contains": "padding"}}
        written = json.dumps({"layer": self.layers, "config": _CONFIG, **size}, ensure_ascii=False, allow_nan=False)
        # Users' names may hold lone surrogates, which UTF-8 cannot.
        clean = written.encode("utf-8", errors="replace").decode("utf-8")
        drawing = _OPENING.sub("", vl_convert.vegalite_to_svg(clean, allowed_base_urls=[]))
        opening = f'<svg class="plot" role="group" aria-label="%s" viewBox="0 0 {_WIDTH} {self._height}">'
        return Markup(opening) % f"{self.title}. {self.sentence}" + Markup(_MARK.sub(_with_tip, drawing))


def _with_tip(mark: re.Match[str]) -> str:
    """A mark whose label is shown under the pointer, too."""
    opening, tag, label = mark.groups()
    return f"{opening}><title>{label}</title>" + (f"</{tag}>" if mark[0].endswith("/>") else "")


def _mark(kind: Kind, colour: str, row: Mapping[str, Any]) -> dict[str, Any]:
    if kind in ("band", "cell"):
        return {"type": "rect", "color": colour} | ({"opacity": 0.1} if kind == "band" else {"cornerRadius": 5})
    if kind == "text":
        return {"type": "text", "color": colour, "fontSize": 13}
    if kind in ("line", "dashed"):
        straight = not {"x", "y"} <= set(row) or bool({"x2", "y2"} & set(row))
        dash = {"strokeDash": [5, 4], "strokeWidth": 1.5} if kind == "dashed" else {"strokeWidth": 2}
        return {"type": "rule" if straight else "line", "color": colour, **dash}
    hollow, shape = kind.startswith("hollow"), kind.removeprefix("hollow ")
    fill, edge = ("var(--card)", colour) if hollow else (colour, "var(--card)")
    look = {"fill": fill, "stroke": edge, "strokeWidth": 1.5, "opacity": 1}
    return {"type": "point", "shape": shape, **look, "size": 100 if shape == "diamond" else 70}
