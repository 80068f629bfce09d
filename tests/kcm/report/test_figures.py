"""The figures draw what was measured: their sentences, legends and marks."""

import re
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from kcm.report import figures
from kcm.report.figures import Chart


def tips(chart: Chart) -> list[str]:
    """The labels of the marks, without those of axes and layers."""
    marks = re.findall(r'<(?:path|text) aria-label="([^"]+)"', str(chart.svg))
    return [label for label in marks if "axis" not in label]


def test_every_figure_of_a_run(inputs, result: dict[str, Any], snapshot: SnapshotAssertion) -> None:
    """Title, sentence, legend and the labels of marks."""
    path, certificate = inputs.certificate_path, result["certificate"]
    result["kcm"]["routing"] |= {"oracle_accuracy": 0.96, "oracle_call_rate": 0.12}
    charts = [
        figures.frontier(inputs.frontiers, result),
        figures.certificate_path(path, certificate),
        figures.accuracy_matrix("kcm", result),
    ]
    assert [(chart.title, chart.sentence, chart.legend, tips(chart)) for chart in charts] == snapshot


def test_a_figure_without_figures_says_why(result: dict[str, Any], snapshot: SnapshotAssertion) -> None:
    """Without numbers there is a sentence in place of the drawing."""
    for who in ("kcm", "mcm"):
        result[who] |= {"overall": {}, "tasks": {"only": {}}, "accuracy_matrix": [[None]]}
    charts = [
        figures.frontier({}, result),
        figures.certificate_path({}, {"reason": "90 rows are too few"}),
        figures.accuracy_matrix("kcm", result),
    ]
    assert [chart.svg for chart in charts] == [None] * len(charts)
    assert [chart.sentence for chart in charts] == snapshot


@pytest.mark.parametrize(
    "lowest", [{"decision": "threshold", "threshold": 1.5}, {"decision": "keep_all", "threshold": None}]
)
def test_passed_thresholds_have_a_band(inputs, result, lowest: dict[str, Any]) -> None:
    """The band is there if a threshold passed, and only then."""
    certificate = result["certificate"] | {"certified": lowest}
    assert "band kcm" in figures.certificate_path(inputs.certificate_path, certificate).legend
    nothing = {"decision": "escalate_all", "threshold": None}
    certificate |= nothing | {"certified": nothing}
    assert set(figures.certificate_path(inputs.certificate_path, certificate).legend) == {"dashed limit", "line kcm"}
