"""Artefacts with something of every row: the shards of each task, in the order of its rows."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from kcm.parquet import read_table
from kcm.tasks.shards import task_shards
from pipelines.store.artefact import Artefact

_SHARD = re.compile(r"task-(\d+)(?:\.\d+)?\.parquet")


class ShardedArtefact(Artefact):
    """An artefact with shards. Those of a bucket are named by the manifest, and fetched by whoever reads them."""

    def shards(self, number: int) -> list[Path]:
        """Where the shards of one task lie, in order; they are here only after `file`, or `fetch` of the storage.

        ArtefactError where one is missing.
        """
        return task_shards(self.path, number, self.manifest["files"] if self.is_remote else None)

    @property
    def all_shards(self) -> dict[str, Path]:
        """The same for the shards of all tasks, by the names of their files, task by task."""
        names = self.manifest["files"] if self.is_remote else [path.name for path in self.path.glob("task-*.parquet")]
        last = max((int(found[1]) for name in names if (found := _SHARD.fullmatch(name))), default=0)
        return {path.name: path for number in range(last + 1) for path in task_shards(self.path, number, names)}

    def fetched(self, number: int) -> list[Path]:
        """The shards of one task, which are here from now on."""
        return [self.file(path.name) for path in self.shards(number)]

    def task(self, number: int, *, split: str | None = None) -> pa.Table:
        """The rows of one task, or of one of its splits, which alone are fetched where the shards are not here."""
        if split is None:
            return pa.concat_tables([read_table(path) for path in self.fetched(number)])
        where = pc.field("split") == split
        names = [path.name for path in self.shards(number)]
        return pa.concat_tables([read_table(self.readable(name), where=where) for name in names])
