"""The files of a task: its rows, split by split, in order, across shards of bounded size.

    task-0003.parquet          shard 0
    task-0003.00001.parquet    shard 1

Whoever writes something of every row (features, outcomes) keeps the same rows in the same shards.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from kcm.errors import ArtefactError
from kcm.parquet import open_writer

GROUP_ROWS = 1024  # rows of one Parquet row group: the unit of reading
SHARD_ROWS = 128 * GROUP_ROWS  # at most; rows that are forgotten later leave a shard with fewer


def shard_file(folder: Path, task: int, shard: int) -> Path:
    """Where a folder keeps one shard of a task."""
    return folder / (f"task-{task:04d}.{shard:05d}.parquet" if shard else f"task-{task:04d}.parquet")


def task_shards(folder: Path, task: int, names: Collection[str] | None = None) -> list[Path]:
    """The shards of a task, in order; `names` are those of the folder's files where they may not be here.

    ArtefactError when there is none, or one is missing between others.
    """
    first, pattern = shard_file(folder, task, 0).name, f"task-{task:04d}.*.parquet"
    there = {path.name for path in folder.glob(f"task-{task:04d}*")} if names is None else names
    found = {first, *(name for name in there if fnmatch(name, pattern))}
    files = [shard_file(folder, task, shard) for shard in range(len(found))]
    for file in files:
        if file.name not in there:
            raise ArtefactError("a shard is missing", where=str(file), hint="Put it back, or build it again")
    return files


def open_shard(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer of a shard. Vectors are written as they are: of numbers that all differ a dictionary saves nothing."""
    plain = [field.name for field in schema if not pa.types.is_fixed_size_list(field.type)]
    return open_writer(path, schema, use_dictionary=plain)


def in_groups(tables: Iterable[pa.Table]) -> Iterator[pa.RecordBatch]:
    """The rows of tables in whole row groups, the last of which may be smaller."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting = [pa.concat_tables([*waiting, table])]
        whole = len(waiting[0]) - len(waiting[0]) % GROUP_ROWS
        yield from (_batch(waiting[0].slice(start, GROUP_ROWS)) for start in range(0, whole, GROUP_ROWS))
        waiting = [waiting[0].slice(whole)]
    yield from (_batch(table) for table in waiting if len(table))


def _batch(rows: pa.Table) -> pa.RecordBatch:
    return rows.combine_chunks().to_batches()[0]


class ShardWriter:
    """Writes rows of a task, as they come, into its shards from `first_shard` on: at least one, which may be empty."""

    def __init__(self, folder: Path, task: int, schema: pa.Schema, *, first_shard: int = 0) -> None:
        self._folder, self._task, self._schema = folder, task, schema
        self._file: pq.ParquetWriter | None = None
        self._first_shard = self._next_shard = first_shard
        self._rows_in_file = 0
        self._waiting = schema.empty_table()  # rows that do not fill a row group yet

    def write(self, rows: pa.Table) -> None:
        """Append rows, which must have the writer's columns."""
        waiting = pa.concat_tables([self._waiting, rows.select(self._schema.names).cast(self._schema)])
        whole = len(waiting) - len(waiting) % GROUP_ROWS
        self._write(waiting.slice(0, whole))
        self._waiting = waiting.slice(whole)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self._write(self._waiting)
            if self._next_shard == self._first_shard:
                self._open()
        self._close()

    def _write(self, rows: pa.Table) -> None:
        """Write whole row groups, or the last rows of all; a shard that is full is closed."""
        while len(rows):
            file = self._file or self._open()
            part = rows.slice(0, SHARD_ROWS - self._rows_in_file)
            file.write_table(part, row_group_size=GROUP_ROWS)
            self._rows_in_file += len(part)
            rows = rows.slice(len(part))
            if self._rows_in_file == SHARD_ROWS:
                self._close()

    def _open(self) -> pq.ParquetWriter:
        self._file = open_shard(shard_file(self._folder, self._task, self._next_shard), self._schema)
        self._next_shard += 1
        self._rows_in_file = 0
        return self._file

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None
