"""The routing report: one page that shows what was decided, and nothing that data could have smuggled in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from syrupy.assertion import SnapshotAssertion

from kcm.report.route_page import RouteReportInputs, render_route_report

Lines = Callable[[str], str]
ENDS = {"estimate": 0.9, "low": 0.88, "high": 0.92}
TEST = {
    "num_rows": 400,
    "call_rate": 0.3,
    "calls_saved": 0.7,
    "cost_saved": None,
    "small": ENDS,
    "large": ENDS,
    "cascade": ENDS,
    "difference": {"estimate": -0.01, "low": -0.02, "high": 0.0},
}
CERTIFICATE = {
    "method": "regret",
    "epsilon": 0.05,
    "delta": 0.1,
    "decision": "threshold",
    "threshold": 0.75,
    "bound": 0.04,
    "valid": True,
    "certified": {"decision": "threshold", "threshold": 0.7},
    "num_rows": 800,
    "reason": "the searched decision is certified",
    "tasks": {},
    "test": TEST,
    "warnings": [],
    "notes": ["<img src=x>"],
}


def page(certificate: dict[str, Any], **shown: Any) -> str:
    inputs: dict[str, Any] = {
        "quality": {"apgr": None, "auroc": 0.71},
        "frontier": {"call_rate": [1.0, 0.4, 0.0], "accuracy": [0.9, 0.92, 0.8]},
        "reliability": [{"confidence": 0.8, "accuracy": 0.7, "count": 10}],
        "certificate_path": {
            "threshold": [0.9, 0.7],
            "p_value": [0.01, 0.2],
            "regret": [0.0, 0.1],
            "call_rate": [0.9, 0.5],
        },
    }
    return render_route_report(
        RouteReportInputs(
            name="<b>table</b>",
            certificate=certificate,
            columns={"label": "<i>"},
            machine="here",
            **{**inputs, **shown},
        )
    )


def test_the_page_says_what_is_decided_and_promised(lines: Lines, snapshot: SnapshotAssertion) -> None:
    html = page(CERTIFICATE)
    assert lines(html) == snapshot
    assert html.count("<svg class") == 4


def test_text_of_the_table_is_never_markup() -> None:
    html = page(CERTIFICATE)
    assert "<b>table" not in html
    assert "<img" not in html
    assert "<i>" not in html
    assert "default-src 'none'" in html.replace("&#x27;", "'")


def test_a_table_without_test_rows_or_confidence_still_has_a_page(lines: Lines, snapshot: SnapshotAssertion) -> None:
    nothing: dict[str, list[float]] = {"threshold": [], "p_value": [], "regret": [], "call_rate": []}
    certificate = {**CERTIFICATE, "decision": "escalate_all", "threshold": None, "test": None}
    assert lines(page(certificate, quality={}, frontier={}, reliability=[], certificate_path=nothing)) == snapshot
