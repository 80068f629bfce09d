"""One Parquet file per task, in the order of the task's rows; and the features, which are stored so.

Shapes: N rows, D features.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kcm.learners.stream import ROWS_PER_GROUP, matrix
from pipelines.store.artefact import Artefact
from pipelines.store.sequence import Names, SequenceArtefact

SECONDS = "seconds"  # what encoding a row took, on one actor: the cost of a call


def task_file(folder: Path, number: int) -> Path:
    """Where an artefact keeps the rows of task `number`."""
    return folder / f"task-{number:04d}.parquet"


def write_rows(path: Path, table: pa.Table) -> None:
    """Write a task's rows in the row groups that training reads by index."""
    pq.write_table(table, path, row_group_size=ROWS_PER_GROUP)


def read_task(folder: Path, number: int, *, split: str | None = None) -> pa.Table:
    """The rows of one task, or of one of its splits."""
    where = None if split is None else pc.field("split") == split
    return pq.read_table(task_file(folder, number), filters=where)


def feature_matrix(table: pa.Table) -> np.ndarray:
    """The features of a table's rows as float32 [N, D]."""
    return matrix(table["features"])


def rows_of_lists(column: pa.ChunkedArray) -> np.ndarray:
    """A column of Ray Data as float32 [N, D]: it stores matrices as tensors or lists, by version."""
    chunks = [chunk.to_numpy_ndarray() if hasattr(chunk, "to_numpy_ndarray") else None for chunk in column.chunks]
    if all(chunk is not None for chunk in chunks):
        return np.concatenate(chunks).astype(np.float32, copy=False)
    return np.stack([np.asarray(value, dtype=np.float32) for value in column.to_pylist()])


class FeaturesArtefact(Artefact):
    """The rows of each task through an encoder: id, split, label, group, features [D], seconds."""

    kind = "features"

    @cached_property
    def sequence(self) -> SequenceArtefact:
        """The task sequence whose rows these are."""
        return self.source(SequenceArtefact, "grow", "alignment", "tasks")

    @property
    def names(self) -> Names:
        """The names of the tasks and labels."""
        return self.sequence.names

    @property
    def identity(self) -> str:
        """The identity of the encoder."""
        identity: str = self.manifest["section"]["identity"]
        return identity

    @property
    def dim(self) -> int:
        """Features of a row."""
        first = pq.ParquetFile(task_file(self.folder, 0)).read_row_group(0, columns=["features"])
        return int(feature_matrix(first).shape[1])

    def task(self, number: int, *, split: str | None = None) -> pa.Table:
        """The rows of one task, or of one of its splits."""
        return read_task(self.folder, number, split=split)
