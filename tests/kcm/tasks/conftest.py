"""Rows and files of the size that a test can read."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from kcm.config import parse_config
from kcm.tasks import TasksConfig, TaskSequence, build_sequence
from kcm.tasks.rows import Row


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[..., Path]:
    """`write_csv(rows, columns)` writes a CSV file and gives its path."""

    def write(
        rows: Sequence[Sequence[object]], columns: Sequence[str] = ("text", "label"), name: str = "data.csv"
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([columns, *rows])
        return path

    return write


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., TaskSequence]:
    """`build(path, source={…}, scenario=…)` builds a sequence from a file: two class-incremental tasks if not told."""

    def build_from(path: Path, *, source: dict | None = None, seed: int = 0, **values: object) -> TaskSequence:
        defaults = {} if {"mapping", "num_tasks", "scenario"} & values.keys() else {"num_tasks": 2}
        config = parse_config(
            TasksConfig,
            {
                "source": {"kind": "files", "path": str(path), **(source or {})},
                "scenario": "class_incremental",
                **defaults,
                **values,
            },
        )
        return build_sequence(config, tmp_path, seed, bad_rows_file=tmp_path / "bad_rows.csv")

    return build_from


@pytest.fixture
def labelled() -> Callable[..., list[tuple[str, str]]]:
    """`labelled(num_rows, num_labels)` gives distinct texts with labels in turn."""

    def rows(num_rows: int, num_labels: int, prefix: str = "sentence") -> list[tuple[str, str]]:
        return [(f"{prefix} number {i}", f"class-{i % num_labels}") for i in range(num_rows)]

    return rows


@pytest.fixture
def rows_of() -> Callable[..., list[Row]]:
    """`rows_of(texts, labels, group=…, task=…, split=…)` gives rows with the ids 0, 1, 2, …"""

    def rows(texts: Sequence[str], labels: Sequence[str] | None = None, **columns: Sequence[str]) -> list[Row]:
        labels = labels or ["a"] * len(texts)
        named = [
            [columns[key][i] if key in columns else "" for key in ("group", "task", "split")] for i in range(len(texts))
        ]
        return [Row(str(i), text, labels[i], *named[i]) for i, text in enumerate(texts)]

    return rows
