"""Draws a Vega-Lite chart of charts.yaml as SVG without script, inline style or network: every page may show it.

Vega's own HTML would add 0.9 MB of script to each page and needs `unsafe-eval`, which the policy of no page allows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import vl_convert
import yaml
from markupsafe import Markup

from kcm.report.formats import known

Rows = Sequence[Mapping[str, Any]]

_WIDTH, _HEIGHT, _ROW_HEIGHT = 520, 340, 30


@dataclass(frozen=True)
class Chart:
    """A drawing with its title and words; without a drawing, `sentence` says why.

    `legend`: the words of each sign, by its classes in style.css (form and colour), such as `line kcm`.
    """

    title: str
    sentence: str
    svg: Markup | None = None
    legend: Mapping[str, str] | None = None
    is_tall: bool = False


def drawing(name: str, num_rows: int = 0, **data: Rows) -> Markup:
    """The chart `name` of charts.yaml with `data` by the names of its data sets; rows with unknown numbers are skipped.

    `num_rows` is how many rows a chart with an axis of names has.
    """
    charts = _charts()
    chart = charts[name]
    names = {layer["data"]["name"] for layer in chart["layer"]}
    specification = chart | {
        "config": charts["config"],
        "datasets": {name: [row for row in data.get(name, ()) if _is_drawn(row)] for name in names},
        "width": _WIDTH,
        "height": max(_HEIGHT, 90 + _ROW_HEIGHT * num_rows),
        "autosize": {"type": "fit", "contains": "padding"},
    }
    text = json.dumps(specification, ensure_ascii=False, allow_nan=False)
    # Users' names may hold lone surrogates, which UTF-8 cannot.
    text = text.encode("utf-8", errors="replace").decode("utf-8")
    return Markup(vl_convert.vegalite_to_svg(text, allowed_base_urls=[]))


@cache
def _charts() -> dict[str, Any]:
    return yaml.safe_load(files("kcm.report").joinpath("charts.yaml").read_text(encoding="utf-8"))


def _is_drawn(row: Mapping[str, Any]) -> bool:
    return all(isinstance(value, str) or known(value) for value in row.values())
