import math
from typing import Any

import pytest

from kcm.costs import Prices
from kcm.report import reading


def test_a_task_of_the_totals_name_stays_apart_from_the_total(result) -> None:
    task = result["kcm"]["tasks"]["reviews"] | {"num_rows": 7}
    result["kcm"]["tasks"] = {reading.ALL_TASKS: task}
    result["mcm"]["tasks"] = {}
    total, only = reading.outcomes(result)
    assert total[1]["kcm"]["num_rows"] == 3000
    assert only == (reading.ALL_TASKS, {"kcm": task})


KEEPS, ESCALATES = ({"valid": True, "decision": decision} for decision in ("threshold", "escalate_all"))


@pytest.mark.parametrize(
    ("certificate", "is_certified"),
    [
        ({"valid": True, "decision": "keep_all"}, True),
        (ESCALATES | {"tasks": {"movies": KEEPS}}, True),
        (KEEPS | {"tasks": {"movies": KEEPS | {"valid": False}}}, False),
        (ESCALATES, False),
        (KEEPS | {"valid": False}, False),
        ({}, False),
    ],
)
def test_kept_rows_and_valid_promises_make_a_certificate(certificate: dict[str, Any], is_certified: bool) -> None:
    """Promise: one decision that keeps something is enough, and one promise that does not hold spoils all."""
    assert reading.is_certified(certificate) == is_certified


def test_everything_escalates_only_if_every_task_does() -> None:
    assert not reading.escalates_all(ESCALATES | {"tasks": {"movies": KEEPS}})
    assert reading.escalates_all(ESCALATES | {"tasks": {"movies": ESCALATES}})


PATH = {
    "method": "net",
    "threshold": [3.0, 2.0, 1.0],
    "p_value": [0.001, 0.02, 0.4],
    "loss": [0.001, 0.005, 0.03],
    "bound": [0.01, 0.018, 0.04],
    "call_rate": [0.5, 0.3, 0.2],
}


def test_points_of_thresholds_lie_between_those_of_the_frontier() -> None:
    frontier = {"threshold": [math.inf, 4.0, 1.0], "accuracy": [0.9, 0.9, 0.6], "call_rate": [1.0, 0.6, 0.0]}
    points = reading.threshold_points(frontier, PATH, Prices(large=0.01, small=0.001, currency="USD"), 2.2)
    assert [point["threshold"] for point in points] == [3.0, 2.0, 1.0]
    assert [point["accuracy"] for point in points] == pytest.approx([0.8, 0.7, 0.6])
    assert [point["call_rate"] for point in points] == pytest.approx([0.4, 0.2, 0.0])
    assert [point["saved"] for point in points] == pytest.approx([5.0, 7.0, 9.0])
    assert [point["bound"] for point in points] == PATH["bound"]
    assert [point["is_deployed"] for point in points] == [False, True, False]
