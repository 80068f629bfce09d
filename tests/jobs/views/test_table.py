"""What a person reads at the end of a run."""

from typing import Any

import pytest
from rich.console import Console
from syrupy.assertion import SnapshotAssertion

from jobs.views.table import MOST_TASKS, WIDTH, result_view


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
        "accuracy_matrix": [
            [0.8, None, None, None],
            [0.79, 0.7, None, None],
            [0.8, 0.71, 0.6, None],
            [0.8, 0.7, 0.6, 0.9],
        ],
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


def test_a_run_fits_on_a_screen(result: dict[str, Any], snapshot: SnapshotAssertion) -> None:
    """What happened, what it is worth and what to do next; what was learned task after task; KCM beside its control."""
    text = shown(result)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert text == snapshot


def test_many_tasks_are_one_row(result: dict[str, Any]) -> None:
    """Of more tasks than fit on a screen the total alone is shown; the report has all."""
    result["kcm"]["tasks"] = {f"task {number}": numbers() for number in range(MOST_TASKS + 1)}
    result["kcm"].pop("accuracy_matrix")
    text = shown(result)
    assert "All tasks" in text
    assert "task 1" not in text
