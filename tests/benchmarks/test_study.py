"""A study compares what it was asked to, computes every cell once, and refuses what cannot be compared."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from benchmarks.study import study as study_module
from benchmarks.study.cell import run_cell, size_accuracies
from benchmarks.study.settings import DEFAULT_SETTINGS, LEARNERS, Settings, has_memory
from benchmarks.study.study import StudyConfig, run_study
from kcm.config import parse_config
from kcm.errors import ConfigError, DataError

QUICK = {
    "default": {"train": {"num_epochs": 4, "batch_size": 16, "learning_rate": 0.02}},
    "replay": {"learner": {"batch_size": 32}},
}
Config = Callable[..., StudyConfig]
Run = Callable[[StudyConfig], dict[str, Any]]


@pytest.fixture(scope="session")
def digits_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 digits: pixel_0 to pixel_63, category."""
    images, labels = load_digits(return_X_y=True)
    path = tmp_path_factory.mktemp("digits") / "digits.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow([*(f"pixel_{i}" for i in range(64)), "category"])
        writer.writerows([*image.astype(int), label] for image, label in zip(images[:600], labels[:600], strict=True))
    return path


@pytest.fixture
def config(digits_csv: Path) -> Config:
    """`config(networks=…, tasks={…})` is a study of the digits in five tasks."""

    def make(**values: Any) -> StudyConfig:
        source = {"kind": "files", "path": str(digits_csv)}
        tasks = {"source": source, "scenario": "class_incremental", "num_tasks": 5, **values.pop("tasks", {})}
        fixed = {"tasks": tasks, "encoder": {"model": "none"}, "feature_columns": ["pixel_*"], "num_seeds": 1}
        return parse_config(StudyConfig, {**fixed, **values})

    return make


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a study with few epochs; a second run finds the first one's storage."""
    return lambda config: run_study(config, Settings(QUICK), tmp_path, tmp_path / "storage")


def test_every_network_with_every_learner_and_memory(config: Config, run: Run) -> None:
    """Promise: every network meets every learner at every memory that means something to it."""
    networks = ["kan", "mlp", "ncm"]
    cells = run(config(networks=networks, learners=["finetune", "replay"], memory_per_class=[0, 2]))["cells"]
    learned = [("finetune", None), ("replay", 0), ("replay", 2)]
    expected = [*((network, *cell) for network in ("kan", "mlp") for cell in learned), ("ncm", None, None)]
    assert [(cell["network"], cell["learner"], cell["memory_per_class"]) for cell in cells] == expected
    kan, mlp = cells[0]["num_parameters"], cells[3]["num_parameters"]
    assert mlp == pytest.approx(kan, rel=0.02)


def test_replay_beats_finetuning_and_joint_bounds_both(config: Config, run: Run) -> None:
    """Promise: replay forgets less than finetuning and joint training bounds both."""
    result = run(config(networks=["kan"], learners=["finetune", "replay", "joint"]))
    finetune, replay, joint = (cell["per_seed"][0] for cell in result["cells"])
    assert finetune["average_accuracy"] < 0.35  # the last task's two classes of ten
    assert finetune["forgetting_first"] > replay["forgetting_first"] + 0.2
    assert joint["average_accuracy"] > 0.85
    assert finetune["gap_to_joint"] == pytest.approx(joint["average_accuracy"] - finetune["average_accuracy"])


def test_interrupted_study_resumes_and_finished_one_is_reused(
    config: Config, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: an interrupted study goes on where it stopped and a finished one computes nothing."""
    asked, computed = config(num_seeds=2), []

    def counting(cell: Any, setting: Any, stream: Any, stop_at: int = 3) -> Any:
        if len(computed) == stop_at:
            raise KeyboardInterrupt
        computed.append(cell)
        return run_cell(cell, setting, stream)

    monkeypatch.setattr(study_module, "run_cell", counting)
    with pytest.raises(KeyboardInterrupt):
        run(asked)
    monkeypatch.setattr(study_module, "run_cell", lambda *cell: counting(*cell, stop_at=99))
    finished = run(asked)
    assert len(computed) == len(set(computed)) == 4
    assert run(asked) == finished
    assert len(computed) == 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learners": ["repaly"]}, r"unknown learner 'repaly', known are .*replay"),
        ({"networks": ["cnn"]}, r"'kan', 'mlp', 'linear', 'random_relu' or 'ncm'"),
        ({"memory_per_class": [0.5]}, r"smaller than the number of classes, 10"),
        ({"tasks": {"num_tasks": 11}}, r"num_tasks = 11, but there are 10 labels"),
        ({"feature_columns": ["pixels_*"]}, r"no column 'pixels_\*'.*mean 'pixel_"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_any_work(
    config: Config, run: Run, monkeypatch: pytest.MonkeyPatch, values: Any, message: str
) -> None:
    monkeypatch.setattr(study_module, "run_cell", lambda *_: pytest.fail("worked"))
    with pytest.raises((ConfigError, DataError), match=message):
        run(config(**values))


@pytest.mark.parametrize("path", sorted(DEFAULT_SETTINGS.parent.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_settings_of_the_benchmarks_are_settings(path: Path) -> None:
    settings = Settings.load(path).over(Settings.load(DEFAULT_SETTINGS))
    for learner in LEARNERS:
        setting = settings.setting("kan", learner, 2 if has_memory(learner) else None, 10)
        assert setting.network.shared


@pytest.mark.parametrize(
    ("labels", "correct", "counts", "expected"),
    [
        # Many (101), medium at both edges (100, 20), few (19); class 3 has test rows of both kinds.
        ([0, 0, 0, 0, 1, 2, 2, 3, 3], [1, 1, 1, 0, 0, 1, 1, 1, 0], [101, 100, 20, 19], (0.75, 0.5, 0.5)),
        ([0, 0], [1, 0], [500, 500, 3], (0.5, None, None)),
        # Head: classes 5 and 2; middle: 4 and 1; tail: 3 and 0.
        ([5, 2, 4, 1, 3, 0], [1, 1, 1, 0, 0, 0], [5, 50, 500, 10, 100, 1000], (1.0, 0.5, 0.0)),
    ],
    ids=["classes weigh equally", "no rows, no figure", "thirds"],
)
def test_bands_of_classes_follow_their_train_rows(
    labels: list[int], correct: list[int], counts: list[int], expected: tuple[float | None, ...]
) -> None:
    """Promise: bands go by train rows, whatever the order of the labels; without test rows they are undefined."""
    accuracies = size_accuracies([(np.array(labels), np.array(correct, dtype=bool))], np.array(counts))
    bands = ("head", "middle", "tail") if len(counts) == 6 else ("many", "medium", "few")
    assert tuple(accuracies[band] for band in bands) == expected
