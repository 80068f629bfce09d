"""`kcm benchmark continual` takes any table to a JSON result and a printed table, or says what is wrong."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from jobs.cli import app
from jobs.commands.benchmark import DEFAULT_SETTINGS
from kcm.study import LEARNERS, Settings
from kcm.study.settings import has_memory

METRICS = {
    "average_accuracy",
    "average_incremental_accuracy",
    "learning_accuracy",
    "forgetting_first",
    "forgetting_max",
    "bwt",
    "fwt",
    "gap_to_joint",
}


def benchmark(table: Path, *words: str) -> Result:
    fixed = ["benchmark", "continual", "--data", str(table), "--storage", str(table.parent / "storage")]
    return CliRunner().invoke(app, [*fixed, *words])


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Six well separated classes of 40 rows."""
    generator = np.random.default_rng(0)
    labels = np.arange(240) % 6
    features = generator.normal(size=(240, 8)) + 6 * np.eye(6, 8)[labels]
    path = tmp_path / "table.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow([*(f"f{i}" for i in range(8)), "category"])
        writer.writerows([*row.round(4), f"class {label}"] for row, label in zip(features, labels, strict=True))
    return path


def test_the_result_has_every_metric_per_seed_and_aggregated(table: Path, tmp_path: Path) -> None:
    words = "--feature-column f* --label-column category --num-tasks 3 --network kan --network ncm --network mlp"
    (tmp_path / "settings.yaml").write_text("default: {train: {num_epochs: 10, batch_size: 8, learning_rate: 0.05}}")
    files = ["--settings", str(tmp_path / "settings.yaml"), "--json", str(tmp_path / "out.json")]
    shown = benchmark(table, *words.split(), "--num-seeds", "2", *files)
    assert shown.exit_code == 0, shown.output
    result = json.loads((tmp_path / "out.json").read_text())
    for cell in result["cells"]:
        assert cell["aggregated"].keys() >= METRICS
        assert [seed.keys() >= METRICS for seed in cell["per_seed"]] == [True, True]
        assert cell["aggregated"]["average_accuracy"]["mean"] > 0.8
    assert result["differences"][0]["average_accuracy"]["degrees_of_freedom"] == 1
    assert all(word in shown.output for word in ("kan", "replay", "kan - mlp", "6 classes in 3 tasks"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--num-tasks 7", "num_tasks = 7, but there are 6 labels"),
        ("--num-tasks 3 --label-column categry", "no column 'categry'"),
        ("--num-tasks 3 --learner repaly", "unknown learner 'repaly'"),
        ("--num-tasks 3 --network knn", "'knn'"),
        ("--num-tasks 3 --memory-per-class 0.5", "smaller than the number of classes, 6"),
        ("--num-tasks 3 --long-tail 0.5", "imbalance_factor = 0.5"),
        ("--num-tasks 3 --settings missing.yaml", "missing.yaml"),
        ("", "nothing tells the tasks of a class_incremental scenario apart"),
    ],
)
def test_bad_input_is_one_line(table: Path, words: str, message: str) -> None:
    ended = benchmark(table, "--feature-column", "f*", *words.split())
    assert ended.exit_code == 2
    assert message in ended.stderr
    assert ended.stderr.strip().count("\n") == 0


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("")
    ended = benchmark(tmp_path / "empty.csv", "--num-tasks", "2")
    assert (ended.exit_code, "no rows" in ended.stderr) == (2, True)


def test_a_missing_file_is_not_taken_for_a_hub_id(tmp_path: Path) -> None:
    ended = benchmark(tmp_path / "missing.csv", "--num-tasks", "2")
    assert "no such file" in ended.stderr


def test_a_class_in_two_tasks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    lines = [f"sentence {i},{'ab'[i % 2]},{'first' if i < 20 else 'second'}" for i in range(40)]
    path.write_text("\n".join(["text,label,domain", *lines]))
    ended = benchmark(path, "--task-column", "domain")
    assert "appears in two tasks" in ended.stderr


@pytest.mark.parametrize("file", sorted(DEFAULT_SETTINGS.parent.glob("*.yaml")), ids=lambda path: path.stem)
@pytest.mark.parametrize("network", ["kan", "mlp", "linear"])
@pytest.mark.parametrize("learner", LEARNERS)
def test_shipped_settings_are_valid_for_every_network_and_learner(file, network, learner) -> None:
    memory = 2.0 if has_memory(learner) else None
    assert Settings.load(file).setting(network, learner, memory, 10).learner.name == learner
