"""The steps of `tasks` on Ray Data, on all nodes; in this process where rows are few, since a cluster takes seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from kcm.tasks.preparation.build import Workers, in_process
from kcm.tasks.preparation.folder import SequenceFolder
from pipelines.batch.mapping import map_items
from pipelines.context import Context
from pipelines.store.storage import Storage

MANY_ROWS = 200_000  # from which on a cluster is worth its start

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


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

    def by_rows(function: Callable[[ItemT], ResultT], items: Sequence[ItemT], num_rows: int) -> Iterable[ResultT]:
        if num_rows < MANY_ROWS or len(items) < 2:
            return in_process(function, items, num_rows)
        context.connect()
        return map_items(function, items, few=2)

    return by_rows
