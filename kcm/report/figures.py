"""The report's figures: numbers in, a chart with its title and sentence out.

A chart is a Vega-Lite chart of charts.yaml, drawn as SVG without script, inline style or network: every page may show
it. Vega's own HTML would add 0.9 MB of script to each page and needs `unsafe-eval`, which the policy of no page allows.
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

from kcm.metrics.routing import thinned
from kcm.report.formats import interval, known, percent
from kcm.report.reading import (
    Columns,
    Numbers,
    Who,
    collaborators,
    deployed,
    named,
    sides,
    task_names,
)

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


SHAPES: dict[Who, str] = {"kcm": "circle", "mcm": "diamond", "linear": "square"}
MAX_POINTS = 400  # of a line


def frontier(frontiers: Mapping[str, Columns], result: Numbers) -> Chart:
    """Accuracy against calls at every threshold, with deployed points, the large model alone, and the oracle."""
    title, names = "Accuracy against calls to the large model", named(result)
    sides_drawn = [who for who in collaborators(result) if frontiers.get(who)]
    if not sides_drawn:
        return Chart(title, "No frontier was measured.")
    first = deployed(result)[1]
    large, oracle = first["overall"].get("large_accuracy"), first.get("routing") or {}
    curves, intervals, points = [], [], []
    for who in sides_drawn:
        tone, overall = f"var(--{who})", collaborators(result)[who]["overall"]
        columns = sorted(zip(frontiers[who]["call_rate"], frontiers[who]["accuracy"], strict=True))
        places = (columns[index] for index in thinned(len(columns), MAX_POINTS))
        curves += [{"x": x, "y": y, "tone": tone} for x, y in places]
        rate, accuracy = overall.get("call_rate"), overall.get("cascade_accuracy")
        bounds = overall.get("cascade_accuracy_interval") or (None, None)
        tip = (
            f"{names[who]} at its threshold: {percent(accuracy)} ({interval(bounds)}) at a call rate of {percent(rate)}"
        )
        intervals.append({"x": rate, "y": bounds[0], "y2": bounds[1], "tone": tone})
        points.append({"x": rate, "y": accuracy, "tone": tone, "shape": SHAPES[who], "tip": tip})
    rate, accuracy = oracle.get("oracle_call_rate"), oracle.get("oracle_accuracy")
    tip = f"oracle router: {percent(accuracy)} at a call rate of {percent(rate)}"
    ideal = {"x": rate, "y": accuracy, "tone": "var(--large)", "shape": "circle", "tip": tip}
    levels = [{"x": 0.0, "x2": 1.0, "y": large, "tone": "var(--large)"}]
    legend = {f"line {who}": f"{names[who]}, any threshold" for who in sides_drawn}
    legend |= {f"{SHAPES[who]} {who}": f"{names[who]} at its threshold, 95% interval" for who in sides_drawn}
    legend |= {"dashed large": "large alone"} if known(large) else {}
    legend |= {"hollow circle large": "oracle router"} if known(rate) else {}
    svg = drawing("frontier", levels=levels, curves=curves, intervals=intervals, points=points, oracle=[ideal])
    return Chart(title, "The left end is the small model alone; the right end asks for every input.", svg, legend)


def accuracy_matrix(who: Who, result: Numbers) -> Chart:
    """R as a heat map: a row per learned task, a column per tested task; shades are the same for all collaborators."""
    tasks, title = task_names(result), f"Accuracy matrix of {named(result)[who]}"
    matrices = sides(result, "accuracy_matrix")
    values = [value for matrix in matrices.values() for row in matrix for value in row if known(value)]
    if not values:
        return Chart(title, "No accuracy was measured task by task.")
    low, spread = min(values), max(values) - min(values)
    cells = []
    for i, row in enumerate(matrices.get(who, ())):
        for j, value in enumerate(row):
            is_learned = known(value) and j <= i
            shade = 0.15 + 0.85 * ((value - low) / spread if spread else 0.5) if is_learned else 0.0
            tip = f"learned up to {tasks[i]}, tested on {tasks[j]}: {percent(value)}"
            place = {"x": str(j + 1), "y": f"{i + 1} {tasks[i]}"}
            cells.append({**place, "shade": shade, "text": percent(value).removesuffix("%"), "tip": tip})
    sentence = (
        "Accuracy in percent on the task of the column, after learning the task of the row. No shade: not learned."
    )
    return Chart(title, sentence, drawing("matrix", len(tasks), cells=cells), is_tall=len(tasks) > 8)
