"""Rows of a task in memory or on disk, read a contiguous range at a time."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from kcm.errors import DataError
from kcm.inputs.vectors import matrix
from kcm.learners.base import Batch, joined
from kcm.learners.ranks import Ranks
from kcm.parquet import sound
from kcm.tasks.shards import GROUP_ROWS, RowIndex

_OPEN_SHARDS = 64  # whose footers are kept


def shares(rows: TaskRows, split: str, ranks: Ranks, *, size: int) -> Iterator[Batch]:
    """A rank's share of a split, `size` rows at a time, its padding with weight 0."""
    for start, stop, weights in ranks.slices(rows.num_rows(split), size):
        batch = rows.read(split, start, stop)
        if len(batch) < len(weights):
            batch = batch.take(torch.arange(len(weights)).clamp_max(len(batch) - 1), weights)
        yield batch.reweighted(weights)


class TensorRows:
    """Rows held in memory, one `Batch` and its ids per split: for tests and in-process benchmarks."""

    def __init__(self, name: str, splits: dict[str, tuple[list[str], Batch]]) -> None:
        self.name, self._splits = name, splits

    def num_rows(self, split: str) -> int:
        """How many rows a split has."""
        return len(self._splits[split][0])

    def ids(self, split: str) -> list[str]:
        """Row ids of a split."""
        return self._splits[split][0]

    def label_counts(self, split: str) -> Mapping[int, int]:
        """The labels of a split's rows, and how many rows have each."""
        return Counter(self._splits[split][1].labels.tolist())

    def read(self, split: str, start: int, stop: int) -> Batch:
        """Rows `start` to `stop` of a split."""
        return self.take(split, torch.arange(start, stop))

    def ids_and_labels(self, split: str, start: int, stop: int) -> tuple[list[str], list[int]]:
        """The ids and labels of these rows."""
        ids, rows = self._splits[split]
        return ids[start:stop], rows.labels[start:stop].tolist()

    def take(self, split: str, positions: Tensor) -> Batch:
        """The rows at `positions` of a split."""
        return self._splits[split][1].take(positions, torch.ones(len(positions)))


class ParquetRows:
    """Rows of a task's shards of features and outcomes, in the same order; each split is contiguous.

    Rows that are out of scope belong to no split here: networks are neither trained nor tested on them.
    What is read is not kept: memory does not depend on the number of rows. Threads may read at the same time.
    Raises DataError for shards that do not hold the same rows: ids are compared whenever rows are read.
    """

    def __init__(self, name: str, features: Sequence[Path], outcomes: Sequence[Path] | None) -> None:
        self.name = name
        self._features, self._outcomes = list(features), list(outcomes) if outcomes else None
        if self._outcomes and len(self._features) != len(self._outcomes):
            where = f"{self._features[0]} and {self._outcomes[0]}"
            raise DataError("features and outcomes have different shards", where=where)
        self._index = RowIndex.of_shards(self._features)
        self._starts = np.concatenate([[0], np.cumsum(self._index.shard_rows)])
        self._lock = threading.Lock()  # an open file has one place of reading
        self._shard = lru_cache(_OPEN_SHARDS)(self._open)

    def num_rows(self, split: str) -> int:
        """How many rows a split has."""
        return len(self._range(split))

    def label_counts(self, split: str) -> Mapping[int, int]:
        """The labels of a split's rows, and how many rows have each."""
        return self._index.labels.get(split, {})

    def read(self, split: str, start: int, stop: int) -> Batch:
        """Rows `start` to `stop` of a split."""
        return joined(self._batch(*part) for part in self._parts(split, start, stop))

    def ids_and_labels(self, split: str, start: int, stop: int) -> tuple[list[str], list[int]]:
        """The ids and labels of these rows."""
        ids: list[str] = []
        labels: list[int] = []
        for shard, first, last in self._parts(split, start, stop):
            with self._lock:
                rows = self._shard(shard)[0].rows(first, last, ["id", "label"])
            ids += rows["id"].to_pylist()
            labels += rows["label"].to_pylist()
        return ids, labels

    def take(self, split: str, positions: Tensor) -> Batch:
        """The rows at `positions` of a split, read by row group."""
        group_N = positions // GROUP_ROWS
        order_N = torch.argsort(group_N, stable=True)
        parts = []
        for group in sorted(set(group_N.tolist())):
            start = group * GROUP_ROWS
            rows = self.read(split, start, min(start + GROUP_ROWS, self.num_rows(split)))
            index = positions[group_N == group] - start
            parts.append(rows.take(index, torch.ones(len(index))))
        return joined(parts).take(order_N.argsort(), torch.ones(len(positions)))

    def _range(self, split: str) -> range:
        return self._index.ranges.get(split, range(0))

    def _parts(self, split: str, start: int, stop: int) -> list[tuple[int, int, int]]:
        """Shard, first and last row within it, of all the shards that hold rows `start` to `stop` of a split."""
        first = self._range(split).start + start
        last = self._range(split).start + stop
        parts = []
        for shard in range(int(np.searchsorted(self._starts, first, side="right")) - 1, len(self._features)):
            at = int(self._starts[shard])
            if at >= last:
                break
            parts.append((shard, max(first - at, 0), min(last, int(self._starts[shard + 1])) - at))
        return parts

    def _batch(self, shard: int, first: int, last: int) -> Batch:
        """Some rows of a shard; a tenth of reading them goes into ids."""
        with self._lock:
            features, outcomes = self._shard(shard)
            ids = [] if outcomes is None else ["id"]
            rows = features.rows(first, last, [*ids, "features", "label"])
            large_NC = np.full((len(rows), 1), np.nan, dtype=np.float32)
            if outcomes is not None:
                answers = outcomes.rows(first, last, [*ids, "large_label", "large_probabilities"])
                if not answers["id"].equals(rows["id"]):
                    raise self._different(shard)
                large_NC = large_distributions(
                    matrix(answers["large_probabilities"]), answers["large_label"].to_numpy()
                )
        return Batch(
            torch.from_numpy(matrix(rows["features"])),
            torch.from_numpy(np.array(rows["label"].to_numpy())),
            torch.from_numpy(large_NC),
            torch.ones(len(rows)),
        )

    def _open(self, shard: int) -> tuple[_ShardFile, _ShardFile | None]:
        """The files of a shard, which must hold the same rows: ids are compared when rows are read."""
        features = _ShardFile(self._features[shard])
        if self._outcomes is None:
            return features, None
        outcomes = _ShardFile(self._outcomes[shard])
        if outcomes.num_rows != features.num_rows:
            raise self._different(shard)
        return features, outcomes

    def _different(self, shard: int) -> DataError:
        outcomes = self._outcomes[shard] if self._outcomes else None
        return DataError("features and outcomes hold different rows", where=f"{self._features[shard]} and {outcomes}")


class _ShardFile:
    """An open shard."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with sound(path):
            # Its pages are not checked: a node fetches the file as a whole, and reads it in every epoch.
            self._file = pq.ParquetFile(path)
        sizes = [self._file.metadata.row_group(group).num_rows for group in range(self._file.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self.num_rows = int(self._starts[-1])

    def rows(self, first: int, last: int, columns: Sequence[str]) -> pa.Table:
        """Columns of rows `first` to `last`, by way of the row groups that hold them."""
        begin, end = np.searchsorted(self._starts, [first, max(first, last - 1)], side="right") - 1
        with sound(self._path):
            table = self._file.read_row_groups(range(begin, end + 1), columns=list(columns))
        return table.slice(first - int(self._starts[begin]), last - first)


def large_distributions(large_NC: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    """The large model's probabilities, one-hot where it gave only a label of the list."""
    in_list = (labels_N >= 0) & (labels_N < large_NC.shape[1])
    only_label = np.flatnonzero(np.isnan(large_NC).any(axis=1) & in_list)
    large_NC[only_label] = np.eye(large_NC.shape[1], dtype=np.float32)[labels_N[only_label]]
    return large_NC


TaskRows = TensorRows | ParquetRows
"""The rows of one task: features, labels and the large model's probabilities, per split."""
