"""The head of the report: key figures, and notices where there is something to be noticed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from syrupy.assertion import SnapshotAssertion

from kcm.report.header import header

Lines = Callable[[str], str]


def test_key_figures_of_an_ordinary_run(result: dict[str, Any], lines: Lines, snapshot: SnapshotAssertion) -> None:
    assert lines(header(result, "reviews")) == snapshot


def test_a_missing_key_figure_says_why(result: dict[str, Any], lines: Lines, snapshot: SnapshotAssertion) -> None:
    result["kcm"]["overall"] |= {"forgetting_first": None, "cost_saved": None}
    assert lines(header(result, "reviews")) == snapshot


def test_no_loss_is_promised_where_all_is_escalated(
    result: dict[str, Any], lines: Lines, snapshot: SnapshotAssertion
) -> None:
    result["certificate"] |= {"decision": "escalate_all", "threshold": None, "reason": "too few rows"}
    assert lines(header(result, "reviews")) == snapshot


def test_only_a_run_with_something_to_notice_has_a_box_of_notices(result: dict[str, Any]) -> None:
    assert "notices" not in header(result, "reviews")
    result["bad_rows"] = 2
    assert "2 rows could not be used and were left out." in header(result, "reviews")
