"""A run as the pipeline reports it, for tests of its report."""

from typing import Any

from kcm.report.page import ReportInputs

TASKS = ("reviews", "movies", "editorials")


def outcome(small: float, large: float, cascade: float, call_rate: float, num_rows: int = 1000) -> dict[str, Any]:
    difference = cascade - large
    return {
        "num_rows": num_rows,
        "small_accuracy": small,
        "small_accuracy_interval": [small - 0.02, small + 0.02],
        "large_accuracy": large,
        "large_accuracy_interval": [large - 0.015, large + 0.015],
        "cascade_accuracy": cascade,
        "cascade_accuracy_interval": [cascade - 0.01, cascade + 0.01],
        "difference": difference,
        "difference_interval": [difference - 0.006, difference + 0.005],
        "call_rate": call_rate,
        "calls_saved": 1 - call_rate,
        "cost_saved": 0.9 * (1 - call_rate),
    }


def label(name: str, small: float, **more: Any) -> dict[str, Any]:
    accuracies = {"small_accuracy": small, "large_accuracy": 0.92, "cascade_accuracy": 0.91}
    return {"label": name, "num_rows": 1500, "calls_saved": 0.7} | accuracies | more


def collaborator(
    form: str, small: float, cascade: float, call_rate: float, matrix: list[list[float]]
) -> dict[str, Any]:
    return {
        "form": form,
        "overall": outcome(small, 0.92, cascade, call_rate, 3000) | {"forgetting_first": 0.021},
        "tasks": {name: outcome(small, 0.92, cascade, call_rate) for name in TASKS},
        "labels": [
            label("bad", 0.7, kept_wrong=9, mistaken_for={"label": "good", "num_rows": 12}),
            label("good", small, kept_wrong=0, mistaken_for=None),
        ],
        "continual": {"average_accuracy": 0.81, "forgetting_first": 0.021, "fwt": None},
        "accuracy_matrix": matrix,
        "routing": {"pgr": 0.95, "apgr": 0.8, "auroc": 0.81},
        "policy": {"gate": "confidence", "decision": {"decision": "threshold", "threshold": 2.0}},
        "num_parameters": 110592,
    }


RESULT: dict[str, Any] = {
    "name": "reviews",
    "kcm": collaborator("quadratic", 0.82, 0.917, 0.29, [[0.85, 0.60, 0.55], [0.83, 0.80, 0.58], [0.81, 0.79, 0.84]]),
    "mcm": collaborator("random ReLU", 0.80, 0.913, 0.36, [[0.84, 0.60, 0.55], [0.79, 0.80, 0.58], [0.75, 0.77, 0.83]]),
    "certificate": {
        "method": "regret",
        "epsilon": 0.02,
        "delta": 0.1,
        "threshold": 2.0,
        "decision": "threshold",
        "bound": 0.018,
        "valid": True,
        "num_rows": 1400,
        "reason": "",
    },
    "kept_wrong": {
        "num_rows": 9,
        "rows": [
            {"id": "r17", "text": "not good at all", "label": "bad", "small": "good", "large": "bad"},
            {"id": "r4", "text": "", "label": "bad", "small": "good", "large": None},
        ],
    },
    "seconds": {"features": 41.0, "train": 96.0, "evaluate": 4.0},
    "cached": {"features": True, "train": False, "evaluate": False},
    "mlflow": {"tracking_uri": "sqlite:///mlflow.db", "run_id": "4f1c0d8d", "model": "kcm-reviews", "version": 3},
    "bad_rows": 0,
}


def report_inputs(result: dict[str, Any]) -> ReportInputs:
    """What the report of `result` is drawn from."""
    frontier = {
        "call_rate": [1.0, 0.6, 0.3, 0.0],
        "accuracy": [0.92, 0.922, 0.917, 0.82],
        "threshold": [float("inf"), 4.0, 2.0, float("-inf")],
    }
    trial = {"collaborator": "kcm", "params": {"gate": "signals", "weight": 0.25}}
    return ReportInputs(
        result=result,
        frontiers={"kcm": frontier, "mcm": frontier},
        trials=[
            trial | {"number": 0, "area": 0.91, "calls_saved": 0.5},
            trial | {"number": 1, "area": 0.90, "calls_saved": 0.7},
            trial | {"number": 2, "area": 0.89, "calls_saved": 0.4},
        ],
        certificate_path={
            "method": "regret",
            "threshold": [float("inf"), 5.0, 3.0, 2.0, 1.0],
            "p_value": [0.0, 0.001, 0.02, 0.09, 0.4],
            "loss": [0.0, 0.001, 0.005, 0.012, 0.018],
            "bound": [0.002, 0.006, 0.012, 0.018, 0.027],
            "call_rate": [1.0, 0.8, 0.5, 0.3, 0.2],
        },
        config_yaml="name: reviews\nseed: 0\n",
        lineage={"features": "a1b2c3", "train": "d4e5f6"},
        machine="2 CPU cores",
    )
