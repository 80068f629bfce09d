"""Where the splits of a task begin and end among its shards, and how many rows have each label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from kcm.errors import DataError
from kcm.inputs.labels import OUT_OF_SCOPE
from kcm.parquet import read_table


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
    def of_shards(cls, shards: Sequence[Path], readable: Callable[[Path], Path | BinaryIO] = Path) -> RowIndex:
        """The index of shards, of which the columns split and label are read; `readable` gives what they are read from.

        Raises DataError for a split in two pieces, ArtefactError for a shard that cannot be read.
        """
        ranges: dict[str, range] = {}
        labels: dict[str, Counter[int]] = {}
        shard_rows: list[int] = []
        for shard in shards:
            start = end = sum(shard_rows)
            for name, counts in _runs_of(readable(shard)):
                begin, end = end, end + sum(counts.values())
                known = ranges.get(name, range(begin, begin))
                if known.stop != begin:
                    raise DataError(f"the rows of split {name!r} are not contiguous", where=str(shard))
                ranges[name] = range(known.start, end)
                labels.setdefault(name, Counter()).update(counts)
            shard_rows.append(end - start)
        return cls(ranges, labels, tuple(shard_rows))


def _runs_of(shard: Path | BinaryIO) -> list[tuple[str, dict[int, int]]]:
    """The runs of rows of one split in a shard, those out of scope apart: name of the split, rows of each label."""
    columns = read_table(shard, columns=["split", "label"])
    split, label_N = columns["split"].combine_chunks().dictionary_encode(), columns["label"].to_numpy()
    names = split.dictionary.to_pylist()
    code_N = 2 * split.indices.to_numpy().astype(np.int64) + (label_N == OUT_OF_SCOPE)
    starts = np.flatnonzero(np.diff(code_N, prepend=-1)).tolist()
    runs: list[tuple[str, dict[int, int]]] = []
    for start, stop in zip(starts, [*starts[1:], len(code_N)], strict=False):
        name = names[code_N[start] // 2]
        labels, counts = np.unique(label_N[start:stop], return_counts=True)
        counted = dict(zip(labels.tolist(), counts.tolist(), strict=True))
        runs.append((f"{name}, out of scope" if code_N[start] % 2 else name, counted))
    return runs
