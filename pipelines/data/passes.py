"""The steps of `tasks` on Ray Data, on all nodes; in this process where rows are few, since a cluster takes seconds."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import ray
import ray.cloudpickle
import ray.data

from kcm.errors import KcmError
from kcm.tasks.preparation.build import Workers, in_process
from kcm.tasks.preparation.payload import SequenceFolder
from pipelines.batch.mapping import silence_ray_data
from pipelines.context import Context
from pipelines.store.storage import Storage

MANY_ROWS = 200_000  # from which on a cluster is worth its start

ItemT = TypeVar("ItemT")


@dataclass(frozen=True)
class StoredFolder(SequenceFolder):
    """A folder of a storage: of a bucket, a file is uploaded as soon as it is whole, and is on no node afterwards."""

    storage: Storage

    @contextmanager
    def new(self, name: str) -> Iterator[Path]:
        """A file to be written, which is part of the storage afterwards."""
        with super().new(name) as draft:
            yield draft
        if self.storage.is_remote:
            self.storage.hand_over(self.path / name)

    def open(self, name: str) -> pa.NativeFile:
        """A file that some node wrote; of a bucket, only what is read is fetched."""
        if not self.storage.is_remote:
            return super().open(name)
        return pa.PythonFile(self.storage.files.open(self.storage.name(self.path / name)), mode="r")

    def remove(self, names: Iterable[str]) -> None:
        """Remove files that are needed no more."""
        self.storage.drop(self.path / name for name in names)


def workers_of(context: Context) -> Workers:
    """Who reads and writes the rows of a run: all nodes, or this process where rows are few."""

    def by_rows(
        function: Callable[[ItemT], Iterable[pa.Table]], items: Sequence[ItemT], num_rows: int
    ) -> Iterable[pa.Table]:
        if num_rows < MANY_ROWS or len(items) < 2:
            return in_process(function, items, num_rows)
        context.connect()
        return on_ray_data(function, items, num_rows)

    return by_rows


def on_ray_data(
    function: Callable[[ItemT], Iterable[pa.Table]], items: Sequence[ItemT], num_rows: int
) -> Iterator[pa.Table]:
    """The tables of every item, by tasks of Ray Data: one is done again where its worker dies.

    A KcmError of the function is raised here as it is.
    """
    silence_ray_data()

    def tables_of(batch: pa.Table) -> Iterator[pa.Table]:
        for item in batch["item"].to_pylist():
            yield from function(pickle.loads(item))

    # Ray's own pickle: an item may hold a reference to an object of Ray.
    rows = [pa.table({"item": [ray.cloudpickle.dumps(item)]}) for item in items]
    done = ray.data.from_arrow(rows).map_batches(tables_of, batch_size=None, batch_format="pyarrow")
    try:
        yield from done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    except Exception as error:
        raise _kcm_error(error) or error from None


def _kcm_error(error: BaseException | None) -> KcmError | None:
    """The error for a person that a task of Ray raised, if that was its cause."""
    while error is not None and not isinstance(error, KcmError):
        error = getattr(error, "cause", None) or error.__cause__
    return error
