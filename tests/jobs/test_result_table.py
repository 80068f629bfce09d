"""What a person reads at the end of a run."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from jobs.table import WIDTH, result_view


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
            "epsilon": 0.02,
            "delta": 0.1,
            "decision": "threshold",
            "threshold": 1.2345,
            "bound": 0.018,
            "valid": True,
        },
        "seconds": {"train": 31.0, "tune": 12.4},
        "cached": {"train": True, "tune": False},
        "mlflow": {"tracking_uri": "sqlite:////runs/mlflow.db", "run_id": "a" * 32, "model": "reviews", "version": 3},
        "report": "/runs/report.html",
        "bad_rows": 2,
    }


def shown(result: dict[str, Any]) -> list[str]:
    console = Console(width=WIDTH, highlight=False)
    with console.capture() as capture:
        console.print(result_view(result))
    return [line.rstrip() for line in capture.get().splitlines()]


def row(lines: list[str], start: str, network: str) -> str:
    """The first line of a network's row, which stands at or below the line with the task's name."""
    first = next(i for i, line in enumerate(lines) if line.strip().startswith(start))
    return next(line for line in lines[first:] if network in line.split())


def test_every_row_fits_into_100_columns_unwrapped(result: dict[str, Any]) -> None:
    lines = shown(result)
    assert max(map(len, lines)) <= WIDTH
    numbers_shown = ["81.2", "89.2", "88.9", "-0.3", "41.0", "59.0", "51.2"]
    assert row(lines, "amazon", "KCM").split() == ["amazon_reviews", "KCM", *numbers_shown]
    assert "1,234 rows" in " ".join(lines)
    assert any("79.0–83.1  87.0–91.1  86.8–90.9  -1.1 to +0.5" in line for line in lines)


def test_mcm_stands_beside_kcm(result: dict[str, Any]) -> None:
    lines = shown(result)
    assert "88.9" in row(lines, "overall", "KCM")
    assert "77.7" in row(lines, "overall", "MCM")
    assert "trainable parameters" in " ".join(lines)
    assert [line.split() for line in lines if "forgetting" in line] == [["forgetting", "first", "2.1", "2.1"]]


def test_a_run_of_kcm_alone_has_no_other_rows(result: dict[str, Any]) -> None:
    del result["mcm"]
    assert not any("MCM" in line for line in shown(result))


def test_a_measure_that_is_undefined_is_a_dash(result: dict[str, Any]) -> None:
    assert [line.split() for line in shown(result) if "forward" in line] == [["forward", "transfer", "–", "–"]]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "at most 2.0 points lost, with probability 0.9 (bound 1.8); keeps scores above 1.234"),
        ({"decision": "keep_all", "threshold": None}, "(bound 1.8); keeps all"),
        ({"decision": "escalate_all", "threshold": None}, "since all is escalated"),
        ({"valid": False, "decision": "escalate_all", "threshold": None}, "the promised call rate cannot be kept"),
    ],
)
def test_the_certificate_is_said_in_words(result: dict[str, Any], changes: dict[str, Any], words: str) -> None:
    result["certificate"] |= changes
    assert any(line.startswith("certificate") and words in line for line in shown(result))


def test_it_says_where_everything_lies(result: dict[str, Any]) -> None:
    text = "\n".join(shown(result))
    assert f"MLflow      run {'a' * 32} at sqlite:////runs/mlflow.db" in text
    assert "registered  reviews version 3" in text
    assert "cached      train\n" in text
    assert "report      /runs/report.html" in text
    assert "bad rows    2" in text


def test_rows_that_have_none_of_the_labels_get_a_line_where_there_are_any(result: dict[str, Any]) -> None:
    assert not any(line.startswith("no label") for line in shown(result))
    for name, escalated in (("kcm", 0.95), ("mcm", 0.9)):
        result[name]["out_of_scope"] = {
            "out_of_scope_num_rows": 1000,
            "out_of_scope_escalated": escalated,
            "out_of_scope_accuracy": 0.815,
        }
    assert [line for line in shown(result) if line.startswith("no label")] == [
        "no label    KCM escalates 95.0% of 1,000 rows with none of the labels; 81.5% are answered so",
        "no label    MCM escalates 90.0% of 1,000 rows with none of the labels; 81.5% are answered so",
    ]


def test_a_long_task_name_folds_and_stays_whole(result: dict[str, Any]) -> None:
    name = "reviews-of-products-" * 3
    result["kcm"]["tasks"] = result["mcm"]["tasks"] = {name: numbers()}
    lines = shown(result)
    assert max(map(len, lines)) <= WIDTH
    assert name in "".join(line.split()[0] for line in lines if line.strip())


def test_a_task_name_is_never_markup(result: dict[str, Any]) -> None:
    result["kcm"]["tasks"] = {"[red]x": numbers()}
    result["mcm"]["tasks"] = {"[red]x": numbers()}
    assert any("[red]x" in line for line in shown(result))
