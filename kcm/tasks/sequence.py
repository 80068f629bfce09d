"""A task sequence: the tasks of continual learning in order, and its form on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kcm.errors import ArtefactError
from kcm.parquet import read_table
from kcm.tasks.plan.scenarios import Scenario, TaskOrder
from kcm.tasks.plan.splits import SPLITS, Split
from kcm.tasks.rows import BadRow, read_bad_rows, write_bad_rows
from kcm.tasks.shards import task_shards, write_shards

# Pictures can pass 2 GiB, which `binary` cannot count.
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("image", pa.large_binary()),
        ("label", pa.int64()),
        ("group", pa.string()),
    ]
)
VECTOR = "vector"  # the column of the rows' own vectors: fixed_size_list<float32>[D]
DESCRIPTION = "sequence.json"
BAD_ROWS = "bad_rows.csv"


@dataclass(frozen=True)
class Task:
    """One task. `rows` have the columns of `SCHEMA`, and `split`, split by split; `label_names` are those that occur.

    Where rows have vectors, they are the column `vector`: lists of D float32. `image` is a picture in the bytes of its
    file; it is empty where rows have none, and so is `text`. `label` counts in the label list of the sequence; it is
    OUT_OF_SCOPE for rows that have none of its labels, and UNLABELLED for train rows that nobody labelled. `group` is
    empty where rows stand alone.
    """

    name: str
    label_names: tuple[str, ...]
    rows: pa.Table = field(repr=False)

    def of_split(self, split: Split) -> pa.Table:
        """The rows of a split."""
        return self.rows.filter(pc.equal(self.rows["split"], split))

    @property
    def splits(self) -> dict[Split, pa.Table]:
        """The rows of each split."""
        return {split: self.of_split(split) for split in SPLITS}


@dataclass(frozen=True)
class TaskSequence:
    """Tasks in the order in which they are learned, over one label list.

    `long_tail` names the labels from the largest class to the smallest, and is empty where no long tail was cut.
    `none_label` is what a large model answers for rows that have none of the labels; null where there are no such rows.
    """

    name: str
    scenario: Scenario
    label_names: tuple[str, ...]
    tasks: tuple[Task, ...]
    order: TaskOrder
    seed: int
    bad_rows: tuple[BadRow, ...] = ()
    long_tail: tuple[str, ...] = ()
    none_label: str | None = None

    @property
    def answer_names(self) -> tuple[str, ...]:
        """The answers of a large model: the label list, then none-of-these where rows may be out of scope."""
        return self.label_names if self.none_label is None else (*self.label_names, self.none_label)

    def save(self, folder: Path) -> None:
        """Write the shards of every task, the bad rows as CSV and, last, a description as JSON."""
        folder.mkdir(parents=True, exist_ok=True)
        for number, task in enumerate(self.tasks):
            _write_rows(folder, number, task.rows)
        write_bad_rows(self.bad_rows, folder / BAD_ROWS)
        tasks = [{"name": task.name, "label_names": task.label_names} for task in self.tasks]
        facts = {name: value for name, value in vars(self).items() if name != "bad_rows"}
        write_description(folder, facts | {"tasks": tasks})

    @classmethod
    def load(cls, folder: Path) -> TaskSequence:
        """Read what `save` wrote. Raises ArtefactError when it is missing or damaged."""
        try:
            description = read_description(folder)
            tasks = tuple(
                Task(entry["name"], tuple(entry["label_names"]), read_rows(folder, number))
                for number, entry in enumerate(description["tasks"])
            )
            return cls(
                name=description["name"],
                scenario=description["scenario"],
                label_names=tuple(description["label_names"]),
                tasks=tasks,
                order=description["order"],
                seed=description["seed"],
                bad_rows=read_bad_rows(folder / BAD_ROWS),
                long_tail=tuple(description["long_tail"]),
                none_label=description["none_label"],
            )
        except (OSError, ValueError, KeyError, pa.ArrowException, ArtefactError) as error:
            raise ArtefactError(f"not a task sequence: {error}", where=str(folder), hint="Build it again") from None


def read_description(folder: Path) -> dict[str, Any]:
    """What is known of a saved sequence without its rows: `name`, `label_names`, `none_label`, `tasks` and more."""
    description: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    return description


def write_description(folder: Path, description: Mapping[str, Any]) -> None:
    """Say what is known of a sequence without its rows; the last file that is written."""
    text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
    (folder / DESCRIPTION).write_text(text, encoding="utf-8")


def append_task(parent: Path, folder: Path, task: Task, label_names: Sequence[str]) -> None:
    """Write what one more task adds to the sequence of `parent` to a folder; `label_names` may be a longer list.

    Whoever calls it puts the other files of the sequence there: a task is written once, however often the sequence
    grows. The description lists such tasks under `grown`.
    """
    description = read_description(parent)
    _write_rows(folder, len(description["tasks"]), task.rows)
    tasks = [*description["tasks"], {"name": task.name, "label_names": task.label_names}]
    grown = [*description.get("grown", []), task.name]
    write_description(folder, description | {"label_names": label_names, "tasks": tasks, "grown": grown})


def _write_rows(folder: Path, task: int, rows: pa.Table) -> None:
    """Write a task, without the column of pictures where there are none."""
    if not pc.any(pc.not_equal(rows["image"], b"")).as_py():
        rows = rows.drop_columns(["image"])
    write_shards(folder, task, [rows])


def read_shard(file: Path) -> pa.Table:
    """The rows of one shard of a saved sequence, with the columns of `Task.rows`."""
    table = read_table(file)
    if "image" not in table.column_names:
        table = table.append_column("image", pa.array([b""] * len(table), pa.large_binary()))
    return table.select([name for name in (*SCHEMA.names, VECTOR, "split") if name in table.column_names])


def read_rows(folder: Path, task: int) -> pa.Table:
    """All rows of one task of a saved sequence."""
    return pa.concat_tables([read_shard(file) for file in task_shards(folder, task)])
