"""Every table of the report as a person reads it, and what reading alone does not show: widths, shades and roles."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from kcm.report import tables

Lines = Callable[[str], str]


def test_outcomes_stand_under_their_heads_and_a_missing_one_is_a_dash_with_a_reason(
    result: dict[str, Any], lines: Lines, snapshot: SnapshotAssertion
) -> None:
    result["kcm"]["tasks"]["movies"]["cost_saved"] = None
    assert lines(tables.outcome_table(result)) == snapshot


def test_every_row_of_the_outcomes_is_as_wide_as_the_head(result: dict[str, Any]) -> None:
    del result["mcm"]["tasks"]["movies"]
    tree = ElementTree.fromstring(tables.outcome_table(result))
    for body in tree.iter("tbody"):
        rows = list(body.iter("tr"))
        spanned = [cell for cell in rows[0] if cell.get("rowspan")]
        assert {int(cell.attrib["rowspan"]) for cell in spanned} == {len(rows)}
        assert [len(row) for row in rows] == [9, *[7] * (len(rows) - 1)]


ROUTING = {
    "kcm": {
        "pgr": None,
        "apgr": None,
        "auroc": 0.8123,
        "calls_saved_at_half_a_point": {"calls_saved": 0.476, "loss": -0.0032},
    },
    "mcm": {"pgr": 0.5, "apgr": 0.4, "auroc": 0.8},
}


@pytest.mark.parametrize(
    "values", [ROUTING, {"kcm": {"new_metric": 0.25, "newer_metric": None}}], ids=["glossary", "own names"]
)
def test_metrics_have_names_and_missing_ones_are_grouped_by_reason(
    values: dict[str, Any], lines: Lines, snapshot: SnapshotAssertion
) -> None:
    assert lines(tables.metric_table("Routing", values)) == snapshot


def test_settings_are_flattened_and_laid_side_by_side(
    result: dict[str, Any], lines: Lines, snapshot: SnapshotAssertion
) -> None:
    """A task keeps its name, where a setting's is spelt in words."""
    policies = {
        "kcm": result["kcm"]["policy"] | {"on_large_failure": "error"},
        "mcm": {
            "gate": "margin",
            "decision": {"decision": "keep_all", "threshold": None},
            "task_decisions": {"my_task": {"decision": "escalate_all", "threshold": None}},
        },
    }
    assert lines(tables.setting_table("Policy", policies)) == snapshot


def test_every_decision_has_its_certificate(result: dict[str, Any], lines: Lines, snapshot: SnapshotAssertion) -> None:
    common = result["certificate"]
    own = common | {"decision": "escalate_all", "threshold": None, "bound": 0.0, "num_rows": 62, "reason": "too few"}
    shown = [lines(tables.certificate_table(each)) for each in (common, common | {"tasks": {"movies": own}})]
    assert "\n".join(shown) == snapshot


def test_a_certificate_of_traffic_says_what_it_promises_of_which_window(result: dict[str, Any]) -> None:
    assert "<small>" not in tables.certificate_table(result["certificate"])
    shown = tables.certificate_table(result["certificate"] | {"statement": "Of the window itself: <little>."})
    assert "<small>Of the window itself: &lt;little&gt;.</small>" in shown


def test_shades_of_the_matrix_run_from_the_lowest_to_the_highest() -> None:
    markup = tables.accuracy_matrix("kcm", [[0.9, None], [0.5, 0.7]], ["a", "b"], 0.5, 0.9)
    cells = list(ElementTree.fromstring(markup).iter("td"))
    assert [cell.text for cell in cells] == ["90.0", "–", "50.0", "70.0"]
    assert [cell.get("class") for cell in cells] == ["now heat-10", "ahead", "heat-0", "now heat-5"]
    assert "heat-5" in tables.accuracy_matrix("kcm", [[0.9]], ["a"], 0.9, 0.9)


def test_the_pareto_front_starts_with_the_most_calls_saved(lines: Lines, snapshot: SnapshotAssertion) -> None:
    trial = {"number": 3, "collaborator": "kcm", "params": {"gate": "margin", "a_l": 0.5}, "area": 0.9}
    assert (
        lines(tables.pareto_table([trial | {"calls_saved": 0.4}, trial | {"number": 7, "calls_saved": 0.6}]))
        == snapshot
    )


def test_stages_say_what_came_from_the_cache(lines: Lines, snapshot: SnapshotAssertion) -> None:
    markup = tables.stage_table(
        {"train": 90.0, "tune": 45.0}, {"train": True, "tune": False}, {"train": "f1", "data": "f0"}
    )
    assert lines(markup) == snapshot
    bars = [span.get("style") for span in ElementTree.fromstring(markup).iter("span") if span.get("class") == "bar"]
    assert bars == ["--width: 100.0%", "--width: 50.0%", "--width: 0.0%"]


def test_facts_are_words(lines: Lines, snapshot: SnapshotAssertion) -> None:
    facts = {"true": True, "false": False, "none": None, "empty": "", "number": 3, "markup": "<b>"}
    assert lines(tables.facts(facts)) == snapshot


def test_a_table_scrolls_by_keyboard_and_has_a_name(result: dict[str, Any]) -> None:
    frame = next(ElementTree.fromstring(tables.outcome_table(result)).iter("div"))
    assert (frame.get("role"), frame.get("tabindex"), frame.get("aria-label")) == ("region", "0", "Outcomes by task")
