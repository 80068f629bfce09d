"""Task sequences in memory, for tests, and for benchmarks that need no storage."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from kcm.inputs.content import TEXT, Part
from kcm.tasks import BadRow, Task, TasksConfig
from kcm.tasks.preparation.build import write_sequence
from kcm.tasks.rows import read_bad_rows
from kcm.tasks.sequence import BAD_ROWS, read_description, read_shard
from kcm.tasks.shards import task_shards
from kcm.tasks.sources import Source


@dataclass(frozen=True)
class TaskSequence:
    """Tasks in the order in which they are learned, over one label list."""

    name: str
    scenario: str
    label_names: tuple[str, ...]
    tasks: tuple[Task, ...]
    bad_rows: tuple[BadRow, ...]
    long_tail: tuple[str, ...]
    none_label: str | None

    @classmethod
    def load(cls, folder: Path) -> TaskSequence:
        """The sequence that was written to a folder."""
        description = read_description(folder)
        task_labels = [(task["name"], tuple(task["label_names"])) for task in description["tasks"]]
        tasks = tuple(Task(*names, read_rows(folder, number)) for number, names in enumerate(task_labels))
        labels, long_tail = map(tuple, (description["label_names"], description["long_tail"]))
        bad_rows = read_bad_rows(folder / BAD_ROWS)
        return cls(
            description["name"], description["scenario"], labels, tasks, bad_rows, long_tail, description["none_label"]
        )


def read_rows(folder: Path, task: int) -> pa.Table:
    """All rows of one task of a written sequence."""
    return pa.concat_tables([read_shard(file) for file in task_shards(folder, task)])


def build_sequence(
    config: TasksConfig,
    assets_dir: Path,
    seed: int,
    *,
    reads: Collection[Part] = TEXT,
    source: Source | None = None,
    bad_rows_file: Path | None = None,
) -> TaskSequence:
    """The sequence that `write_sequence` writes. `source` replaces the configured one."""
    source = source or config.source.build(assets_dir)
    with tempfile.TemporaryDirectory() as folder:
        write_sequence(config, Path(folder), source, seed, reads=reads, bad_rows_file=bad_rows_file)
        return TaskSequence.load(Path(folder))
