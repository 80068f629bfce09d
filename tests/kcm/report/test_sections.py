"""The sections between head and foot: what a run measured is shown, and nothing twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from syrupy.assertion import SnapshotAssertion

from kcm.report import sections

Lines = Callable[[str], str]


def test_routing_does_not_repeat_what_stands_above(result: dict[str, Any], lines: Lines) -> None:
    plain = lines(sections.routing(result, {}))
    result["kcm"]["routing"] |= {"small_accuracy": 0.82, "large_accuracy": 0.92}
    assert lines(sections.routing(result, {})) == plain


def test_prompts_are_shown_where_they_were_tried(
    result: dict[str, Any], lines: Lines, snapshot: SnapshotAssertion
) -> None:
    assert "What prompts do" not in sections.routing(result, {})
    effect = {"num_rows": 100, "corrected": 0.051, "misled": 0.02, "off_label": 0.01, "failed": 0.0}
    result["kcm"]["prompts"] = {"soft": {"promised": 0.4, "large_accuracy": 0.93} | effect}
    assert lines(sections.routing(result, {})) == snapshot


def test_inputs_that_have_none_of_the_labels_have_a_table_where_there_are_any(
    result: dict[str, Any], lines: Lines, snapshot: SnapshotAssertion
) -> None:
    assert "none of the labels" not in sections.outcomes(result, {})
    result["kcm"]["out_of_scope"] = {"out_of_scope_num_rows": 1000, "out_of_scope_escalated": 0.953}
    assert lines(sections.outcomes(result, {})) == snapshot


def test_both_matrices_share_their_shades(result: dict[str, Any]) -> None:
    result["kcm"]["accuracy_matrix"] = [[0.5]]
    result["mcm"]["accuracy_matrix"] = [[0.9]]
    markup = sections.continual(result)
    assert 'heat-0">50.0<' in markup
    assert 'heat-10">90.0<' in markup


def test_a_front_without_scores_has_no_table(result: dict[str, Any]) -> None:
    trial = {"number": 0, "collaborator": "kcm", "params": {}, "area": None, "calls_saved": None, "pareto": True}
    assert "The Pareto front" not in sections.tuning(result, [trial])
