"""scikit-learn's digits as a table of features that a study reads."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sklearn.datasets import load_digits

from kcm.config import parse_config
from kcm.study import Settings, StudyConfig, run_study

QUICK = {
    "default": {"train": {"num_epochs": 4, "batch_size": 16, "learning_rate": 0.02}},
    "replay": {"learner": {"batch_size": 32}},
}


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
def config(digits_csv: Path) -> Callable[..., StudyConfig]:
    """`config(networks=…, tasks={…})` is a study of the digits in five tasks."""

    def make(**values: Any) -> StudyConfig:
        source = {"kind": "files", "path": str(digits_csv)}
        tasks = {"source": source, "scenario": "class_incremental", "num_tasks": 5, **values.pop("tasks", {})}
        encoder = {"model": "none"}
        return parse_config(
            StudyConfig, {"tasks": tasks, "encoder": encoder, "feature_columns": ["pixel_*"], "num_seeds": 1, **values}
        )

    return make


@pytest.fixture
def run(tmp_path: Path) -> Callable[[StudyConfig], dict[str, Any]]:
    """Runs a study with few epochs; a second run finds the first one's storage."""
    return lambda config: run_study(config, Settings(QUICK), tmp_path, tmp_path / "storage")
