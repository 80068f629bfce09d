"""Train rows read by index, in an order that any number of workers shares and that a resumed run repeats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from kcm.errors import DataError
from kcm.inputs.labels import OUT_OF_SCOPE
from kcm.learners.base import Batch

ROWS_PER_GROUP = 1024  # rows of one Parquet row group: the unit of reading


class TaskRows(Protocol):
    """The rows of one task: features, labels and the large model's probabilities, per split."""

    name: str

    def num_rows(self, split: str) -> int:
        """Rows of a split."""
        ...

    def ids(self, split: str) -> list[str]:
        """Row ids of a split, in stored order."""
        ...

    def labels(self, split: str) -> list[int]:
        """Labels of a split, in stored order."""
        ...

    def take(self, split: str, positions: Tensor) -> Batch:
        """The rows at `positions` of a split, all with weight 1."""
        ...


class TensorRows:
    """Rows held in memory, one `Batch` and its ids per split: for tests and in-process benchmarks."""

    def __init__(self, name: str, splits: dict[str, tuple[list[str], Batch]]) -> None:
        self.name, self._splits = name, splits

    def num_rows(self, split: str) -> int:
        """Rows of a split."""
        return len(self._splits[split][0])

    def ids(self, split: str) -> list[str]:
        """Row ids of a split."""
        return self._splits[split][0]

    def labels(self, split: str) -> list[int]:
        """Labels of a split."""
        return self._splits[split][1].labels.tolist()

    def take(self, split: str, positions: Tensor) -> Batch:
        """The rows at `positions` of a split."""
        return self._splits[split][1].take(positions, torch.ones(len(positions)))


class ParquetRows:
    """Rows of a features file and of the outcomes file beside it, both in the same order, a split contiguous.

    Rows that are out of scope belong to no split here: networks are neither trained nor tested on them.
    Row groups are decoded on demand and the latest `cached_groups` kept: vectors take the same memory for any number of
    rows. Ids and labels of all rows are held.
    """

    def __init__(self, name: str, features: Path, outcomes: Path | None, *, cached_groups: int = 32) -> None:
        self.name = name
        self._features, self._outcomes = pq.ParquetFile(features), pq.ParquetFile(outcomes) if outcomes else None
        index = self._features.read(columns=["id", "split", "label"])
        self._ids: list[str] = index["id"].to_pylist()
        self._labels: list[int] = index["label"].to_pylist()
        splits = zip(index["split"].to_pylist(), self._labels, strict=True)
        self._ranges = _split_ranges(
            [f"{split}, out of scope" if label == OUT_OF_SCOPE else split for split, label in splits],
            where=str(features),
        )
        if self._outcomes and self._outcomes.read(columns=["id"])["id"].to_pylist() != self._ids:
            raise DataError("features and outcomes hold different rows", where=f"{features} and {outcomes}")
        sizes = [self._features.metadata.row_group(i).num_rows for i in range(self._features.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        self._group = lru_cache(cached_groups)(self._read_group)

    def num_rows(self, split: str) -> int:
        """Rows of a split."""
        return len(self._ranges.get(split, range(0)))

    def ids(self, split: str) -> list[str]:
        """Row ids of a split."""
        rows = self._ranges.get(split, range(0))
        return self._ids[rows.start : rows.stop]

    def labels(self, split: str) -> list[int]:
        """Labels of a split."""
        rows = self._ranges.get(split, range(0))
        return self._labels[rows.start : rows.stop]

    def take(self, split: str, positions: Tensor) -> Batch:
        """The rows at `positions` of a split, read by row group."""
        rows = positions.numpy() + self._ranges[split].start
        groups = np.searchsorted(self._starts, rows, side="right") - 1
        parts = {group: self._group(int(group)) for group in np.unique(groups)}
        offsets = rows - self._starts[groups]
        features, large = (
            torch.from_numpy(np.stack([parts[g][field][o] for g, o in zip(groups, offsets, strict=True)]))
            for field in (0, 1)
        )
        labels = torch.tensor([self._labels[row] for row in rows])
        return Batch(features, labels, large, torch.ones(len(rows)))

    def _read_group(self, group: int) -> tuple[np.ndarray, np.ndarray]:
        features = matrix(self._features.read_row_group(group, columns=["features"])["features"])
        if self._outcomes is None:
            return features, np.full((len(features), 1), np.nan, dtype=np.float32)
        start, stop = int(self._starts[group]), int(self._starts[group + 1])
        answers = self._outcomes.read_row_group(group, columns=["large_label", "large_probabilities"])
        large = _with_labels(matrix(answers["large_probabilities"]), answers["large_label"].to_numpy())
        if len(large) != stop - start:
            raise DataError("features and outcomes differ in their row groups", where=self.name)
        return features, large


def matrix(column: pa.ChunkedArray) -> np.ndarray:
    """A column of equally long float lists as a float32 matrix [N, D]."""
    values = column.combine_chunks()
    width = values.type.list_size
    flat: np.ndarray = values.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(-1, width).astype(np.float32)  # a copy: Arrow's own memory is read-only


def _with_labels(large_NC: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    """The large model's probabilities, one-hot where it gave only a label of the list."""
    in_list = (labels_N >= 0) & (labels_N < large_NC.shape[1])
    only_label = np.flatnonzero(np.isnan(large_NC).any(axis=1) & in_list)
    large_NC[only_label] = np.eye(large_NC.shape[1], dtype=np.float32)[labels_N[only_label]]
    return large_NC


def list_column(values_ND: np.ndarray) -> pa.FixedSizeListArray:
    """A float matrix [N, D] as a column of lists: the inverse of `matrix`."""
    values = np.ascontiguousarray(values_ND)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def train_order(
    sizes: Sequence[int], *, seed: int, task: int, epoch: int, window: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """The order of one epoch over `sizes[k]` train rows of stream k, as one chunk per window.

    Blocks of ROWS_PER_GROUP rows come in a seeded order and rows are shuffled within windows of `window` blocks, so
    that a reader needs only one window in memory. Each chunk is a pair of equally long tensors: stream, position.
    """
    blocks = [(stream, start) for stream, size in enumerate(sizes) for start in range(0, size, ROWS_PER_GROUP)]
    rng = np.random.default_rng([seed, task, epoch])
    rng.shuffle(blocks)
    for first in range(0, len(blocks), window):
        chunk = blocks[first : first + window]
        lengths = [min(ROWS_PER_GROUP, sizes[stream] - start) for stream, start in chunk]
        streams = np.repeat([stream for stream, _ in chunk], lengths)
        positions = np.concatenate([np.arange(start, start + n) for (_, start), n in zip(chunk, lengths, strict=True)])
        shuffled = rng.permutation(len(positions))
        yield torch.from_numpy(streams[shuffled]), torch.from_numpy(positions[shuffled])


def _split_ranges(splits: list[str], *, where: str) -> dict[str, range]:
    ranges: dict[str, range] = {}
    start = 0
    for position in range(1, len(splits) + 1):
        if position < len(splits) and splits[position] == splits[start]:
            continue
        if splits[start] in ranges:
            raise DataError(f"the rows of split {splits[start]!r} are not contiguous", where=where)
        ranges[splits[start]] = range(start, position)
        start = position
    return ranges
