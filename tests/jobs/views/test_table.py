"""What a person reads at the end of a run."""

from typing import Any

import pytest
from rich.console import Console
from syrupy.assertion import SnapshotAssertion

from jobs.views.table import WIDTH, result_view


def numbers(**changes: object) -> dict[str, Any]:
    return {
        "num_rows": 1234,
        "small_accuracy": 0.8123,
        "small_accuracy_interval": [0.79, 0.831],
        "large_accuracy": 0.892,
        "large_accuracy_interval": [0.87, 0.911],
        "cascade_accuracy": 0.889,
        "cascade_accuracy_interval": [0.868, 0.909],
        "difference": -0.003,
        "difference_interval": [-0.011, 0.005],
        "call_rate": 0.41,
        "calls_saved": 0.59,
        "cost_saved": 0.512,
        **changes,
    }


def side(**changes: object) -> dict[str, Any]:
    tasks = ("amazon_reviews", "movies", "editorials", "tweets")
    return {
        "overall": numbers(forgetting_first=0.021),
        "tasks": {task: numbers() for task in tasks},
        "continual": {"average_accuracy": 0.81, "forgetting_first": 0.021, "fwt": None},
        "num_parameters": 123456,
        **changes,
    }


@pytest.fixture
def result() -> dict[str, Any]:
    return {
        "kcm": side(),
        "mcm": side(overall=numbers(cascade_accuracy=0.777)),
        "certificate": {
            "method": "net",
            "num_rows": 3045,
            "epsilon": 0.02,
            "delta": 0.08,
            "asked_delta": 0.1,
            "decision": "threshold",
            "threshold": 1.2345,
            "bound": 0.018,
            "valid": True,
        },
        "recommendation": "Deploy it: the loss is certified.",
        "costs": {"large": 0.002, "small": 0.0001, "currency": "USD"},
        "seconds": {"train": 31.0, "tune": 12.4},
        "cached": {"train": True, "tune": False},
        "mlflow": {"tracking_uri": "sqlite:////runs/mlflow.db", "run_id": "a" * 32, "model": "reviews", "version": 3},
        "report": "/runs/report.html",
        "bad_rows": 2,
    }


def shown(result: dict[str, Any]) -> str:
    console = Console(width=WIDTH, highlight=False)
    with console.capture() as capture:
        console.print(result_view(result))
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def test_tables_fit_and_stand_above_where_everything_lies(result: dict[str, Any], snapshot: SnapshotAssertion) -> None:
    text = shown(result)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert text == snapshot


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"decision": "keep_all", "threshold": None},
        {"decision": "escalate_all", "threshold": None},
        {"valid": False, "decision": "escalate_all", "threshold": None},
    ],
    ids=["threshold", "keep all", "escalate all", "not valid"],
)
def test_the_certificate_is_said_in_words(
    result: dict[str, Any], changes: dict[str, Any], snapshot: SnapshotAssertion
) -> None:
    result["certificate"] |= changes
    text = shown(result)
    assert text[text.index("certificate") : text.index("MLflow")] == snapshot


def test_out_of_scope_rows_get_a_line_if_there_are_any(result: dict[str, Any], snapshot: SnapshotAssertion) -> None:
    """Promise: rows that have none of the labels get a line where there are any."""
    assert "no label" not in shown(result)
    for name, escalated in (("kcm", 0.95), ("mcm", 0.9)):
        result[name]["out_of_scope"] = {
            "out_of_scope_num_rows": 1000,
            "out_of_scope_escalated": escalated,
            "out_of_scope_accuracy": 0.815,
        }
    assert [line for line in shown(result).splitlines() if line.startswith("no label")] == snapshot


def test_kept_share_of_an_unknown_class_gets_a_line(result: dict[str, Any]) -> None:
    """Promise: what would be kept of an unknown class gets a line where the learner can tell."""
    assert "new classes" not in shown(result)
    result["kcm"]["unknown_classes"] = {"num_rows": 1500, "kept": 0.2712, "kept_once_noticed": 0.098}
    text = " ".join(shown(result).split())
    assert "KCM would keep 27.1% of a class that it has never seen, 9.8% once noticed, by 1,500 rows" in text


def test_a_long_task_name_folds_and_stays_whole(result: dict[str, Any]) -> None:
    name = "reviews-of-products-" * 3
    result["kcm"]["tasks"] = result["mcm"]["tasks"] = {name: numbers()}
    lines = shown(result).splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert name in "".join(line.split()[0] for line in lines if line.strip())


def test_a_task_name_is_never_markup(result: dict[str, Any]) -> None:
    result["kcm"]["tasks"] = {"[red]x": numbers()}
    result["mcm"]["tasks"] = {"[red]x": numbers()}
    assert "[red]x" in shown(result)
