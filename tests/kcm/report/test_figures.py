"""The figures draw what was measured: their sentences, legends and marks."""

import re
from typing import Any

from syrupy.assertion import SnapshotAssertion

from kcm.report import figures
from kcm.report.figures import Chart


def tips(chart: Chart) -> list[str]:
    """The labels of the marks, without those of axes and layers."""
    marks = re.findall(r'<(?:path|text) aria-label="([^"]+)"', str(chart.svg))
    return [label for label in marks if "axis" not in label]


def test_every_figure_of_a_run(inputs, result: dict[str, Any], snapshot: SnapshotAssertion) -> None:
    """Title, sentence, legend and the labels of marks."""
    result["kcm"]["routing"] |= {"oracle_accuracy": 0.96, "oracle_call_rate": 0.12}
    charts = [
        figures.frontier(inputs.frontiers, result),
        figures.accuracy_matrix("kcm", result),
    ]
    assert [(chart.title, chart.sentence, chart.legend, tips(chart)) for chart in charts] == snapshot


def test_a_figure_without_figures_says_why(result: dict[str, Any], snapshot: SnapshotAssertion) -> None:
    """Without numbers there is a sentence in place of the drawing."""
    for who in ("kcm", "mcm"):
        result[who] |= {"overall": {}, "tasks": {"only": {}}, "accuracy_matrix": [[None]]}
    charts = [
        figures.frontier({}, result),
        figures.accuracy_matrix("kcm", result),
    ]
    assert [chart.svg for chart in charts] == [None] * len(charts)
    assert [chart.sentence for chart in charts] == snapshot
