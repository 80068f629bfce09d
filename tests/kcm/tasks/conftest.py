"""Rows and files of the size that a test can read."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from benchmarks.sequences import TaskSequence, build_sequence
from kcm.config import parse_config
from kcm.tasks import TasksConfig
from kcm.tasks.rows import SourceRow
from kcm.tasks.rows import rows_of as normalised
from kcm.tasks.sources import Source, TableShard


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
    """`build(path, source={…}, scenario=…)` builds a sequence from a file: two class-incremental tasks by default."""

    def build_from(path: Path, *, source: dict | None = None, seed: int = 0, **values: object) -> TaskSequence:
        defaults = {} if {"num_tasks", "scenario"} & values.keys() else {"num_tasks": 2}
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
def rows_of() -> Callable[..., pa.Table]:
    """`rows_of(texts, labels, group=…, task=…, split=…)` gives normalised rows with the ids 0, 1, 2, …"""

    def rows(texts: Sequence[str], labels: Sequence[str] | None = None, **columns: Sequence[str]) -> pa.Table:
        labels = labels or ["a"] * len(texts)
        return normalised(
            [
                SourceRow(str(i), text, labels[i], **{name: values[i] for name, values in columns.items()})
                for i, text in enumerate(texts)
            ]
        )

    return rows


@dataclass
class Splits:
    """The split of every row by its id, and the reason why the others are left out."""

    of: dict[str, str]
    reasons: dict[str, str]


@pytest.fixture
def split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Splits]:
    """`split(table, …, fractions=…, salt=…)` draws splits; every table is a shard of the source."""
    for check in ("check_labels", "check_splits"):  # a split may be empty
        monkeypatch.setattr(f"kcm.tasks.preparation.build.{check}", lambda *_: None)

    def drawn(*tables: pa.Table, salt: int = 0, **values: object) -> Splits:
        settings = {"salt": salt, "max_bad_rows": "100%", "num_tasks": 1, "scenario": "class_incremental", **values}
        source = Source("rows", tuple(TableShard(str(i), table) for i, table in enumerate(tables)))
        sequence = build_sequence(parse_config(TasksConfig, settings), tmp_path, 0, source=source)
        rows = [row for task in sequence.tasks for row in task.rows.to_pylist()]
        return Splits({row["id"]: row["split"] for row in rows}, {row.id: row.reason for row in sequence.bad_rows})

    return drawn
