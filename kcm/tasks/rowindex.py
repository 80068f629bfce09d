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
import pyarrow as pa

from kcm.errors import DataError
from kcm.inputs.labels import OUT_OF_SCOPE
from kcm.parquet import read_table

INDEX = ".index.json"


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
        return cls._load(file) if file.exists() else cls.read(shards)

    @classmethod
    def read(cls, shards: Sequence[Path | BinaryIO]) -> RowIndex:
        """The index of some shards from their columns split and label."""
        return cls.joined((shard, cls._of_shard(shard)) for shard in shards)

    @classmethod
    def joined(cls, parts: Iterable[tuple[Path | BinaryIO, RowIndex]]) -> RowIndex:
        """The index of some shards in their order, of which each has its own."""
        ranges: dict[str, range] = {}
        labels: dict[str, Counter[int]] = {}
        shard_rows: list[int] = []
        for shard, part in parts:
            at = sum(shard_rows)
            for name, own in part.ranges.items():
                known = ranges.get(name, range(at + own.start, at + own.start))
                if known.stop != at + own.start:
                    raise _in_pieces(name, shard)
                ranges[name] = range(known.start, at + own.stop)
                labels.setdefault(name, Counter()).update(part.labels[name])
            shard_rows += part.shard_rows
        return cls(ranges, labels, tuple(shard_rows))

    @classmethod
    def _of_shard(cls, shard: Path | BinaryIO) -> RowIndex:
        ranges: dict[str, range] = {}
        labels: dict[str, dict[int, int]] = {}
        split, label_N = _columns(shard)
        for name, first, last in _runs(split, label_N):
            if name in ranges:
                raise _in_pieces(name, shard)
            ranges[name] = range(first, last)
            values, counts = np.unique(label_N[first:last], return_counts=True)
            labels[name] = dict(zip(values.tolist(), counts.tolist(), strict=True))
        return cls(ranges, labels, (len(label_N),))

    def save(self, first_shard: Path) -> None:
        """Leave the index beside the first shard of its task."""
        content = {
            "ranges": {split: [rows.start, rows.stop] for split, rows in self.ranges.items()},
            "labels": {split: list(map(list, sorted(counts.items()))) for split, counts in self.labels.items()},
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


def _in_pieces(split: str, shard: Path | BinaryIO) -> DataError:
    return DataError(f"the rows of split {split!r} are not contiguous", where=str(shard))


def _columns(shard: Path | BinaryIO) -> tuple[pa.Array, np.ndarray]:
    """Split and label of every row."""
    columns = read_table(shard, columns=["split", "label"])
    return columns["split"].combine_chunks(), columns["label"].to_numpy()


def _runs(split: pa.Array, label_N: np.ndarray) -> list[tuple[str, int, int]]:
    """Name, first row and end of each run of rows of one split, those out of scope apart."""
    if not len(label_N):
        return []
    coded = split.dictionary_encode()
    names = coded.dictionary.to_pylist()
    code_N = 2 * coded.indices.to_numpy().astype(np.int64) + (label_N == OUT_OF_SCOPE)
    ends = [*np.flatnonzero(np.diff(code_N)) + 1, len(code_N)]
    runs, first = [], 0
    for end in map(int, ends):
        name = names[code_N[first] // 2]
        runs.append((f"{name}, out of scope" if code_N[first] % 2 else name, first, end))
        first = end
    return runs
