"""Rows of the stage `tasks`: written by all nodes, and not read again where the files of the source are the same.

The storage remembers, by all that decides a sequence (configuration, and the stamp of every shard), the digest of the
rows that came of it. A stamp changes whenever the content may have changed, so a file that was merely touched is read
again, and has the digest that it had.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from kcm.tasks.preparation.build import Workers, in_process
from kcm.tasks.shards import SequenceFolder
from kcm.tasks.sources import Shard, Source
from pipelines.batch.mapping import map_items
from pipelines.context import Context
from pipelines.store.storage import AT_ONCE, Storage

MANY_ROWS = 200_000  # from which on a cluster, which takes seconds to start, is worth it


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

    def by_rows(function: Callable[[Any], Any], items: Sequence[Any], num_rows: int) -> Iterable[Any]:
        if num_rows < MANY_ROWS or len(items) < 2:
            return in_process(function, items, num_rows)
        context.connect()
        return map_items(function, items, few=2)

    return by_rows


def source_key(source: Source, decides: Mapping[str, Any]) -> str | None:
    """What the storage knows a source by, as it is now; None where nothing tells whether it has changed.

    `decides` is what else makes the sequence, as plain values.
    """
    stamps = _stamps(source.shards)
    if None in stamps:
        return None
    content = [source.name, source.labels, source.out_of_scope_label, stamps, dict(decides)]
    return f"sources/{hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:32]}"


def _stamps(shards: Sequence[Shard]) -> list[str | None]:
    """The stamp of every shard, in order; of none where the first has none."""
    if not shards or shards[0].stamp() is None:
        return [None]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(lambda shard: shard.stamp(), shards))
