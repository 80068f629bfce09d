"""A task sequence: the tasks of continual learning in order, and their format on disk."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kcm.parquet import read_table
from kcm.tasks.shards import write_shards
from kcm.tasks.splits import SPLITS, Split
from kcm.tasks.units import text_key

# Pictures may exceed 2 GiB, the limit of `binary`.
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("image", pa.large_binary()),
        ("label", pa.int64()),
        ("group", pa.string()),
    ]
)
VECTOR = "vector"  # the column of vectors: fixed_size_list<float32>[D]
DESCRIPTION = "sequence.json"
BAD_ROWS = "bad_rows.csv"
UNITS = "units.parquet"  # identifies the whole table in the ledger: digests of its contents and its groups


@dataclass(frozen=True)
class Task:
    """One task; `rows` have the columns of `SCHEMA` plus `split`, split by split.

    `label_names` are the labels that occur. Vectors are in the column `vector`: lists of D float32. `image` holds the
    bytes of a picture's file; it is empty if rows have none, and so is `text`. `label` is an index into the label list
    of the sequence, OUT_OF_SCOPE for rows with none of its labels, or UNLABELLED for train rows without a label.
    `group` is empty for rows without a group.
    """

    name: str
    label_names: tuple[str, ...]
    rows: pa.Table = field(repr=False)

    @property
    def splits(self) -> dict[Split, pa.Table]:
        """The rows of each split."""
        return {split: self.rows.filter(pc.equal(self.rows["split"], split)) for split in SPLITS}


def read_description(folder: Path) -> dict[str, Any]:
    """The description of a saved sequence: `name`, `label_names`, `none_label`, `tasks` and more, without rows."""
    return json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))


def write_description(folder: Path, description: Mapping[str, Any]) -> None:
    """Write the description of a sequence; it is the last file to be written."""
    text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
    (folder / DESCRIPTION).write_text(text, encoding="utf-8")


def append_task(parent: Path, folder: Path, task: Task, label_names: Sequence[str]) -> None:
    """Write the files that one more task adds to the sequence of `parent`; `label_names` may be longer than before.

    The caller adds the other files of the sequence: a task is written once, however often the sequence grows. The
    description lists such tasks under `grown`.
    """
    description = read_description(parent)
    write_rows(folder, len(description["tasks"]), task.rows)
    tasks = [*description["tasks"], {"name": task.name, "label_names": task.label_names}]
    grown = [*description.get("grown", []), task.name]
    write_description(folder, description | {"label_names": label_names, "tasks": tasks, "grown": grown})


def write_rows(folder: Path, task: int, rows: pa.Table) -> None:
    """Write a task, without the picture column if there are no pictures."""
    if not pc.any(pc.not_equal(rows["image"], b"")).as_py():
        rows = rows.drop_columns(["image"])
    write_shards(folder, task, [rows])


def read_shard(file: Path) -> pa.Table:
    """The rows of one shard of a saved sequence, with the columns of `Task.rows`."""
    table = read_table(file)
    if "image" not in table.column_names:
        table = table.append_column("image", pa.array([b""] * len(table), pa.large_binary()))
    return table.select([name for name in (*SCHEMA.names, VECTOR, "split") if name in table.column_names])


_SHORTEST = 5  # minimum length for this comparison: shorter labels, such as cat and car, differ by a letter on purpose


@dataclass(frozen=True)
class Summary:
    """Counts of a task sequence.

    `labels` counts the rows of each label, `rows` the rows of each task by split, and `certify_units` the independent
    units among the certify rows of each task. `num_overlapping` rows were dropped because another split has their
    content or group. `num_repeating` rows without a group share their content with other rows and form one unit with
    them.
    """

    labels: dict[str, int]
    rows: dict[str, dict[str, int]]
    certify_units: dict[str, int]
    num_bad: int
    num_overlapping: int = 0
    num_repeating: int = 0

    @property
    def num_rows(self) -> int:
        """The number of used rows."""
        return sum(sum(splits.values()) for splits in self.rows.values())

    @property
    def alike(self) -> list[tuple[str, str]]:
        """Pairs of labels with almost the same spelling."""
        return alike(self.labels)


def read_summary(folder: Path) -> Summary:
    """The summary of a sequence by `kcm.tasks.preparation.build`."""
    return Summary(**read_description(folder)["summary"])


def alike(labels: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of labels that differ only in case, spaces or punctuation, or by one letter.

    Different numbers are meant to differ; the same number in several forms (1, 1.0, 01) is a pair.
    """
    names = list(labels)
    plain = {label: _number(label) or re.sub(r"[\W_]+", "", text_key(label)) for label in names}
    near: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for label, letters in plain.items():
        digits = re.findall(r"\d+", letters)
        near[letters, *digits].append(label)
        if len(letters) >= _SHORTEST:
            for shorter in {letters[:place] + letters[place + 1 :] for place in range(len(letters))}:
                near[shorter, *digits].append(label)
    return sorted({pair for members in near.values() for pair in combinations(members, 2)})


def _number(label: str) -> str:
    """The shortest form of a label that is a number; "" for any other label."""
    return f"{float(label):g}" if re.fullmatch(r"\s*[-+]?\d+(\.\d*)?\s*", label) else ""
