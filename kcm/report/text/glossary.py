"""What each metric is called on the page, how it is written, and why it may be missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kcm.report.text.formats import lost_points, number, percent, points

UNMEASURED = "not measured in this run"
_ONE_TASK = "needs at least two tasks"
_NO_GAIN = "undefined where the large model is no better than the small one"


@dataclass(frozen=True)
class Metric:
    """A metric's words; `reason` is why it is missing when it is."""

    label: str
    show: Callable[[float | None], str] = number
    reason: str = UNMEASURED


METRICS: dict[str, Metric] = {
    "large_accuracy": Metric("Large alone", percent),
    "small_accuracy": Metric("Small alone", percent),
    "cascade_accuracy": Metric("Cascade", percent),
    "difference": Metric("Difference, points", points),
    "call_rate": Metric("Call rate", percent),
    "calls_saved": Metric("Calls saved", percent),
    "cost_saved": Metric("Cost saved", percent),
    "average_accuracy": Metric("Average accuracy after the last task", percent),
    "average_incremental_accuracy": Metric("Average incremental accuracy", percent),
    "learning_accuracy": Metric("Learning accuracy", percent),
    "forgetting_first": Metric("Forgetting since learned, points", lost_points, _ONE_TASK),
    "forgetting_max": Metric("Forgetting since best, points", lost_points, _ONE_TASK),
    "bwt": Metric("Backward transfer, points", points, _ONE_TASK),
    "fwt": Metric("Forward transfer, points", points, "needs two tasks and labels that are all known beforehand"),
    "gap_to_joint": Metric("Gap to joint training, points", points, "no joint training to compare with"),
    "many": Metric("Many-shot accuracy", percent, "no label has more than 100 train rows"),
    "medium": Metric("Medium-shot accuracy", percent, "no label has 20 to 100 train rows"),
    "few": Metric("Few-shot accuracy", percent, "no label has fewer than 20 train rows"),
    "pgr": Metric("Performance gap recovered (PGR)", number, _NO_GAIN),
    "apgr": Metric("Average PGR over call rates", number, _NO_GAIN),
    "cpt_50": Metric("Least call rate for PGR 0.5", percent, _NO_GAIN),
    "cpt_80": Metric("Least call rate for PGR 0.8", percent, _NO_GAIN),
    "auroc": Metric(
        "AUROC of the gate score", number, "needs rows that the small model gets right and rows it gets wrong"
    ),
    "area": Metric("Area under the frontier"),
    "calls_saved_at_half_a_point.calls_saved": Metric("Calls saved at ½ point lost on validate", percent),
    "calls_saved_at_half_a_point.loss": Metric("and what that loses on test, points", lost_points),
    "calls_saved_at_one_point.calls_saved": Metric("Calls saved at 1 point lost on validate", percent),
    "calls_saved_at_one_point.loss": Metric("and what that loses on test, points", lost_points),
    "expected_calibration_error": Metric("Expected calibration error, points", lost_points),
    "oracle_accuracy": Metric("Oracle router, accuracy", percent),
    "oracle_call_rate": Metric("Oracle router, call rate", percent),
    "out_of_scope_num_rows": Metric("Test rows with none of the labels"),
    "out_of_scope_escalated": Metric("of these, escalated", percent),
    "out_of_scope_accuracy": Metric("of these, answered none-of-these", percent),
    "num_parameters": Metric("Trainable parameters"),
}

_PROMPT_METRICS: dict[str, Metric] = {
    "promised": Metric("calls saved that a certificate should leave, on validate", percent),
    "calls_saved": Metric("calls saved on validate", percent),
    "area": Metric("area under the frontier on validate"),
    "large_accuracy": Metric("large alone", percent),
    "num_rows": Metric("test rows"),
    "corrected": Metric("wrong answers put right, points", lost_points),
    "misled": Metric("right answers put wrong, points", lost_points),
    "off_label": Metric("answers outside the label list", percent),
    "failed": Metric("answers that never came", percent),
}
METRICS |= {
    f"{mode}.{key}": Metric(f"{words}: {each.label}", each.show)
    for mode, words in (("none", "No prompt"), ("soft", "Soft prompt"), ("hard", "Hard prompt"))
    for key, each in _PROMPT_METRICS.items()
}


def metric(key: str) -> Metric:
    """The words of `key`; a metric that is not in the glossary goes by its own name."""
    return METRICS.get(key, Metric(key.replace("_", " ")))
