"""The figures draw what was measured: their sentences, legends and marks, read from the layers of each."""

from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from kcm.report import figures
from kcm.report.chart import Chart


def rows(chart: Chart) -> list[dict[str, Any]]:
    return [row for layer in chart.layers for row in layer["data"]["values"]]


def tips(chart: Chart) -> list[str]:
    return [row["tip"] for row in rows(chart) if "tip" in row]


def test_every_figure_of_a_run(inputs, result: dict[str, Any], snapshot: SnapshotAssertion) -> None:
    path, certificate = inputs.certificate_path, result["certificate"]
    result["kcm"]["routing"] |= {"oracle_accuracy": 0.96, "oracle_call_rate": 0.12}
    drawn = [
        figures.frontier(inputs.frontiers, result),
        figures.certificate_path(path, certificate),
        figures.reliability(inputs.reliability, result),
        figures.accuracy_matrix("kcm", result),
    ]
    assert [(chart.title, chart.sentence, chart.legend, tips(chart)) for chart in drawn] == snapshot
    assert all(chart.svg for chart in drawn)


def test_a_figure_without_figures_says_why(result: dict[str, Any], snapshot: SnapshotAssertion) -> None:
    result["kcm"]["overall"] = result["mcm"]["overall"] = {}
    for who in ("kcm", "mcm"):
        result[who] |= {"tasks": {"only": {}}, "accuracy_matrix": [[None]]}
    empty = [
        figures.frontier({}, result),
        figures.certificate_path({}, {"reason": "90 rows are too few"}),
        figures.reliability({}, result),
    ]
    assert [chart.svg for chart in empty] == [None] * len(empty)
    assert [chart.reason for chart in empty] == snapshot


def test_the_test_that_was_used_is_the_test_that_is_drawn(inputs, result: dict[str, Any]) -> None:
    net = result["certificate"] | {"method": "net"}
    drawn = figures.certificate_path(inputs.certificate_path | {"method": "net"}, net)
    assert "by the test net, wins of the small model credited" in drawn.sentence


@pytest.mark.parametrize(
    ("lowest", "start"),
    [({"decision": "threshold", "threshold": 1.5}, 1.5), ({"decision": "keep_all", "threshold": None}, 1.0)],
)
def test_certified_reaches_from_the_lowest_certified_threshold(inputs, result, lowest, start: float) -> None:
    drawn = figures.certificate_path(inputs.certificate_path, result["certificate"] | {"certified": lowest})
    (band,) = [row for row in rows(drawn) if "x2" in row]
    assert band == {"x": start, "x2": 5.0}


def test_nothing_is_certified_where_all_is_escalated(inputs, result) -> None:
    nothing = {"decision": "escalate_all", "threshold": None}
    drawn = figures.certificate_path(inputs.certificate_path, result["certificate"] | nothing | {"certified": nothing})
    assert set(drawn.legend) == {"δ = 0.1", "p-value, by regret"}


def test_reliability_does_not_judge_by_a_handful_of_rows(result) -> None:
    bins = [
        {"confidence": 0.5, "accuracy": 0.0, "count": 1},
        {"confidence": 0.8, "accuracy": 0.7, "count": 400},
        {"confidence": 0.95, "accuracy": 0.94, "count": 600},
    ]
    assert figures.reliability({"kcm": bins}, result).sentence.startswith("KCM: furthest off where 80% sure")
