"""A task sequence: the tasks of continual learning in order, and its form on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from kcm.errors import ArtefactError
from kcm.tasks.rows import BadRow, read_bad_rows, write_bad_rows
from kcm.tasks.scenarios import Scenario, TaskOrder
from kcm.tasks.splits import SPLITS, Split

# Pictures can pass 2 GiB, which `binary` cannot count.
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("image", pa.large_binary()),
        ("label", pa.int64()),
        ("group", pa.string()),
    ]
)
_DESCRIPTION, _BAD_ROWS = "sequence.json", "bad_rows.csv"


@dataclass(frozen=True)
class Task:
    """One task. `splits` hold the columns id, text, image, label and group; `label_names` are the labels that occur.

    `image` is a picture in the bytes of its file; it is empty where rows have none, and so is `text`. `label` counts
    in the label list of the sequence; it is OUT_OF_SCOPE for rows that have none of its labels, and UNLABELLED for
    train rows that nobody labelled. `group` is empty where rows stand alone.
    """

    name: str
    label_names: tuple[str, ...]
    splits: Mapping[Split, datasets.Dataset]


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
    long_tail: tuple[str, ...] = field(default=())
    none_label: str | None = None

    @property
    def answer_names(self) -> tuple[str, ...]:
        """The answers of a large model: the label list, then none-of-these where rows may be out of scope."""
        return self.label_names if self.none_label is None else (*self.label_names, self.none_label)

    def rows(self, task: int) -> pa.Table:
        """All rows of one task with a column `split`, split by split, in the order of the source."""
        parts = []
        for split in SPLITS:
            part = self.tasks[task].splits[split].with_format("arrow")[:].cast(_SCHEMA)
            parts.append(part.append_column("split", pa.array([split] * len(part), pa.string())))
        return pa.concat_tables(parts).combine_chunks()

    def save(self, folder: Path) -> None:
        """Write one Parquet file per task, the bad rows as CSV and, last, a description as JSON."""
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(len(self.tasks)):
            pq.write_table(_stored(self.rows(number)), folder / _file_name(number))
        write_bad_rows(self.bad_rows, folder / _BAD_ROWS)
        description = {
            "name": self.name,
            "scenario": self.scenario,
            "label_names": self.label_names,
            "order": self.order,
            "seed": self.seed,
            "long_tail": self.long_tail,
            "none_label": self.none_label,
            "tasks": [{"name": task.name, "label_names": task.label_names} for task in self.tasks],
        }
        (folder / _DESCRIPTION).write_text(
            json.dumps(description, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )

    @classmethod
    def load(cls, folder: Path) -> TaskSequence:
        """Read what `save` wrote. Raises ArtefactError when it is missing or damaged."""
        try:
            description = json.loads((folder / _DESCRIPTION).read_text(encoding="utf-8"))
            tasks = tuple(
                Task(entry["name"], tuple(entry["label_names"]), _read_splits(folder / _file_name(number)))
                for number, entry in enumerate(description["tasks"])
            )
            return cls(
                name=description["name"],
                scenario=description["scenario"],
                label_names=tuple(description["label_names"]),
                tasks=tasks,
                order=description["order"],
                seed=description["seed"],
                bad_rows=read_bad_rows(folder / _BAD_ROWS),
                long_tail=tuple(description["long_tail"]),
                none_label=description["none_label"],
            )
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise ArtefactError(f"not a task sequence: {error}", where=str(folder), mend="Build it again") from None


def dataset_of(rows: Mapping[str, list[Any]]) -> datasets.Dataset:
    """A split from its columns id, text, image, label and group."""
    return datasets.Dataset(pa.table(dict(rows), schema=_SCHEMA))


def _stored(table: pa.Table) -> pa.Table:
    """A table as it is kept: without the column of pictures where there are none."""
    has_pictures = pa.compute.any(pa.compute.not_equal(table["image"], b"")).as_py()
    return table if has_pictures else table.drop_columns(["image"])


def _file_name(number: int) -> str:
    return f"task-{number:04d}.parquet"


def _read_splits(path: Path) -> dict[Split, datasets.Dataset]:
    table = pq.read_table(path)
    if "image" not in table.column_names:
        table = table.append_column("image", pa.array([b""] * len(table), pa.large_binary()))
    splits = table.column("split")
    return {
        split: datasets.Dataset(table.filter(pa.compute.equal(splits, split)).select(_SCHEMA.names)) for split in SPLITS
    }
