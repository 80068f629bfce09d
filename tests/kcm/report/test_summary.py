"""What a run comes to: result, guarantee, advice and warnings, each in the snapshot of the case that it is for."""

import math
from typing import Any

import pytest
from scipy.stats import binomtest
from syrupy.assertion import SnapshotAssertion

from kcm.certification.ledger import question_delta
from kcm.report import summary

ESCALATES = {"decision": "escalate_all", "threshold": None}
SEARCHED = {"searched": {"decision": "threshold", "threshold": 2.0}}
COSTS = {"large": 0.002, "small": 0.0001, "currency": "USD"}
PATH = {"threshold": [2.0], "p_value": [0.2], "loss": [0.015], "bound": [0.028], "call_rate": [0.4]}


def sentences(result: dict[str, Any], path: dict[str, Any] | None = None) -> list[str]:
    certificate = result.get("certificate", {})
    text = [summary.headline(result), summary.measured(result), summary.promise(certificate)]
    return [*text, summary.recommendation(result, path), *summary.warnings(result)]


CASES: dict[str, dict[str, Any]] = {
    "ordinary": {},
    "in money": {"costs": COSTS},
    "dearer than the large model": {"costs": COSTS | {"small": 0.01}},
    "a gain": {"overall": {"difference": 0.012, "difference_interval": [0.002, 0.022]}},
    "no difference": {"overall": {"difference": -0.0003}},
    "unmeasured": {"overall": {"difference": None, "call_rate": None, "calls_saved": None}},
    "all is kept": {"overall": {"call_rate": 0.0, "calls_saved": 1.0}},
    "almost all is kept": {"overall": {"call_rate": 0.001, "calls_saved": 0.999}},
    "no threshold": {"policy": {"decision": {"decision": "keep_all"}}},
    "no threshold, but a reach": {"policy": {"decision": {"decision": "keep_all"}, "farthest": 40.0}},
    "a small model that is no worse": {"overall": {"small_accuracy": 0.93}},
    "lost more on test": {"overall": {"difference": -0.031}},
    "computation costs more": {"overall": {"cost_saved": -0.359}},
    "bad rows": {"bad_rows": 1200},
    "a later look": {"certificate": {"asked_delta": 0.1, "delta": question_delta(0.1, 2)}},
    "thresholds by task": {
        "certificate": {"delta": 0.02, "tasks": {task: {"delta": 0.02, "valid": True} for task in "abcd"}}
    },
    "one task keeps": {
        "certificate": ESCALATES | {"tasks": {"movies": {"decision": "keep_all", "delta": 0.1, "valid": True}}}
    },
    "a bound that is a gain": {"certificate": {"bound": -0.004, "method": "net"}},
    "logged traffic": {
        "certificate": {
            "method": "traffic",
            "window": {"after": 100, "upto": 900, "expires_at": "2026-12-24T00:00:00Z"},
        }
    },
    "the search escalates": {"certificate": ESCALATES | {"searched": ESCALATES, "reason": "the search escalates all"}},
    "too few rows": {
        "certificate": ESCALATES | SEARCHED | {"num_units": 98, "fewest_units": 193, "reason": "98 units"}
    },
    "more rows would do": {"certificate": ESCALATES | SEARCHED | {"num_units": 900, "fewest_units": 193}},
    "too large a loss": {
        "certificate": ESCALATES | SEARCHED | {"epsilon": 0.01, "num_units": 900, "fewest_units": 193}
    },
    "a path is not known": {"certificate": ESCALATES},
    "no loss allowed": {"certificate": {"epsilon": 0.0, "bound": -0.002, "method": "net"}},
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_is_described_in_words(result: dict[str, Any], case: str, snapshot: SnapshotAssertion) -> None:
    changes = dict(CASES[case])
    result["kcm"]["overall"] |= changes.pop("overall", {})
    result["kcm"] |= {name: changes.pop(name) for name in ("policy",) if name in changes}
    result["certificate"] |= changes.pop("certificate", {})
    assert sentences(result | changes, PATH if "row" in case or "loss" in case else None) == snapshot


def test_missing_and_off_list_answers_show_share_and_examples(result: dict[str, Any]) -> None:
    replies = {"off_label": 71, "off_label_replies": ["Sure!", "late"]}
    result["large"] = {"rows": 1995, "failed": 65, "waiting": 65, **replies}
    assert summary.warnings(result) == [
        "The large model gave no answer to 65 of 1,995 rows (3.3%); the next run retries.",
        "71 of 1,995 answers of the large model (3.6%) are not on the label list and count as wrong, such as 'Sure!',"
        " 'late'.",
    ]


def test_a_run_without_a_certificate_promises_nothing(result: dict[str, Any], snapshot: SnapshotAssertion) -> None:
    del result["certificate"]
    assert sentences(result) == snapshot


def test_a_deployed_mcm_has_the_headline(result: dict[str, Any], snapshot: SnapshotAssertion) -> None:
    turned = {"mcm": result["mcm"], "kcm": result["kcm"], "certificate": result["certificate"]}
    assert sentences(turned) == snapshot


@pytest.mark.parametrize(
    ("delta", "said"), [(0.1, "90%"), (0.05, "95%"), (0.01216, "98.7%"), (0.3, "70%"), (0.001, "99.9%")]
)
def test_confidence_is_rounded_down(delta: float, said: str) -> None:
    assert summary.confidence_words({"delta": delta}) == said


@pytest.mark.parametrize(
    ("bound", "said"), [(0.01034, "1.1 points"), (0.018, "1.8 points"), (-0.0049, "a gain of 0.4 points")]
)
def test_a_bound_is_rounded_up(bound: float, said: str) -> None:
    assert summary.bound_words({"bound": bound}) == said


def test_recorded_answers_are_not_deployed(result: dict[str, Any]) -> None:
    assert summary.recommendation(result).startswith("Deploy it: ")
    assert summary.recommendation(result, live=False).startswith("Set a live model in `large` and run again")


@pytest.mark.parametrize("loss", [0.0, 0.005, 0.015])
def test_so_many_rows_would_have_shown_it(loss: float) -> None:
    """Oracle: the exact binomial test."""
    rows = math.ceil(math.log(10) / summary.divergence(loss, 0.02))
    assert binomtest(round(loss * rows), rows, 0.02, alternative="less").pvalue <= 0.1


def test_a_class_that_goes_unnoticed_is_a_warning(result: dict[str, Any]) -> None:
    """Only of the deployed model, in whole percent."""
    result["mcm"]["unknown_classes"] = {"num_rows": 677, "kept": 0.5, "kept_once_noticed": 0.5}
    assert summary.warnings(result) == []
    result["kcm"]["unknown_classes"] = {"num_rows": 677, "kept": 1.0, "kept_once_noticed": 0.099}
    assert summary.warnings(result) == [
        "A brand-new class would go unnoticed at first: the small model would answer 100% of its inputs"
        " (10% once novelty detection reacts)."
    ]
