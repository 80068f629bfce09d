"""Where the splits of a task begin and end among its shards, and how many rows have each label."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from kcm.errors import DataError
from kcm.inputs.labels import OUT_OF_SCOPE
from kcm.parquet import read_table

INDEX = ".index.json"
Runs = list[tuple[str, dict[int, int]]]
"""The runs of rows of one split in a shard, those out of scope apart: name of the split, and rows of each label."""


@dataclass(frozen=True)
class RowIndex:
    """What is known of a task's rows without reading them: kilobytes, however many there are.

    `ranges` are the rows of each split that are not out of scope, counted over all shards; `labels` how many rows of
    such a range have each label; `shard_rows` the rows of every shard.
    """

    ranges: Mapping[str, range]
    labels: Mapping[str, Mapping[int, int]]
    shard_rows: tuple[int, ...]

    @classmethod
    def of_shards(cls, shards: Sequence[Path]) -> RowIndex:
        """The index that `save` left beside the first shard; where there is none, as after rows were forgotten, read.

        Raises DataError for a split in two pieces, ArtefactError for a shard that cannot be read.
        """
        file = index_file(shards[0])
        return cls._load(file) if file.exists() else cls.of_runs((shard, runs_of(shard)) for shard in shards)

    @classmethod
    def of_runs(cls, shards: Iterable[tuple[Path, Runs]]) -> RowIndex:
        """The index of shards in their order, of which each has its runs."""
        ranges: dict[str, range] = {}
        labels: dict[str, Counter[int]] = {}
        shard_rows: list[int] = []
        for shard, runs in shards:
            start = end = sum(shard_rows)
            for name, counts in runs:
                begin, end = end, end + sum(counts.values())
                known = ranges.get(name, range(begin, begin))
                if known.stop != begin:
                    raise DataError(f"the rows of split {name!r} are not contiguous", where=str(shard))
                ranges[name] = range(known.start, end)
                labels.setdefault(name, Counter()).update(counts)
            shard_rows.append(end - start)
        return cls(ranges, labels, tuple(shard_rows))

    def save(self, first_shard: Path) -> None:
        """Leave the index beside the first shard of its task."""
        content = {
            "ranges": {split: [rows.start, rows.stop] for split, rows in self.ranges.items()},
            "labels": {split: sorted(counts.items()) for split, counts in self.labels.items()},
            "shard_rows": self.shard_rows,
        }
        draft = index_file(first_shard).with_suffix(".draft")
        draft.write_text(json.dumps(content), encoding="utf-8")
        os.replace(draft, index_file(first_shard))

    @classmethod
    def _load(cls, file: Path) -> RowIndex:
        content = json.loads(file.read_text(encoding="utf-8"))
        return cls(
            {split: range(*ends) for split, ends in content["ranges"].items()},
            {split: dict(counts) for split, counts in content["labels"].items()},
            tuple(content["shard_rows"]),
        )


def index_file(first_shard: Path) -> Path:
    """Where the index of the task lies whose first shard this is."""
    return first_shard.with_suffix(INDEX)


def runs_of(shard: Path | BinaryIO) -> Runs:
    """The runs of a shard, from its columns split and label."""
    columns = read_table(shard, columns=["split", "label"])
    split, label_N = columns["split"].combine_chunks().dictionary_encode(), columns["label"].to_numpy()
    names = split.dictionary.to_pylist()
    code_N = 2 * split.indices.to_numpy().astype(np.int64) + (label_N == OUT_OF_SCOPE)
    starts = np.flatnonzero(np.diff(code_N, prepend=-1)).tolist()
    runs: Runs = []
    for start, stop in zip(starts, [*starts[1:], len(code_N)], strict=False):
        name = names[code_N[start] // 2]
        labels, counts = np.unique(label_N[start:stop], return_counts=True)
        counted = dict(zip(labels.tolist(), counts.tolist(), strict=True))
        runs.append((f"{name}, out of scope" if code_N[start] % 2 else name, counted))
    return runs
