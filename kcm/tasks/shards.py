"""The files of a task: its rows, split by split, in order, in shards of bounded size.

    task-0003.parquet          shard 0
    task-0003.00001.parquet    shard 1

Whoever writes values per row (features, outcomes) keeps the same rows in the same shards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import accumulate, chain
from pathlib import Path
from typing import BinaryIO, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from kcm.errors import ArtefactError
from kcm.inputs.labels import OUT_OF_SCOPE
from kcm.local_files import drafted
from kcm.parquet import open_writer, read_table

GROUP_ROWS = 1024  # rows of one Parquet row group: the unit of reading
SHARD_ROWS = 128 * GROUP_ROWS  # at most; a shard has fewer after rows are forgotten


def shard_file(folder: Path, task: int, shard: int) -> Path:
    """The path of one shard of a task in a folder."""
    return folder / (f"task-{task:04d}.{shard:05d}.parquet" if shard else f"task-{task:04d}.parquet")


def task_shards(folder: Path, task: int, names: Collection[str] | None = None) -> list[Path]:
    """The shards of a task, in order; `names` are the file names of the folder if its files may not be local.

    ArtefactError if there is none, or a shard is missing between others.
    """
    first, pattern = shard_file(folder, task, 0).name, f"task-{task:04d}.*.parquet"
    names_in_folder = {path.name for path in folder.glob(f"task-{task:04d}*")} if names is None else names
    shard_names = {first, *(name for name in names_in_folder if fnmatch(name, pattern))}
    files = [shard_file(folder, task, shard) for shard in range(len(shard_names))]
    for file in files:
        if file.name not in names_in_folder:
            raise ArtefactError("a shard is missing", where=str(file), hint="Put it back, or build it again")
    return files


def open_shard(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer of a shard. Vectors are written without a dictionary: numbers that all differ gain nothing from one."""
    plain = [field.name for field in schema if not pa.types.is_fixed_size_list(field.type)]
    return open_writer(path, schema, use_dictionary=plain)


def in_groups(tables: Iterable[pa.Table]) -> Iterator[pa.RecordBatch]:
    """The rows of tables in whole row groups; the last group may be smaller."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting = [pa.concat_tables([*waiting, table])]
        whole = len(waiting[0]) - len(waiting[0]) % GROUP_ROWS
        yield from (_batch(waiting[0].slice(start, GROUP_ROWS)) for start in range(0, whole, GROUP_ROWS))
        waiting = [waiting[0].slice(whole)]
    yield from (_batch(table) for table in waiting if len(table))


def _batch(rows: pa.Table) -> pa.RecordBatch:
    return rows.combine_chunks().to_batches()[0]


def write_shards(folder: Path, task: int, tables: Iterable[pa.Table]) -> None:
    """Write the rows of a task into shards: at least one, possibly empty. The first table defines the columns."""
    remaining = iter(tables)
    first = next(remaining)
    schema = first.schema
    groups = in_groups(table.select(schema.names).cast(schema) for table in chain([first], remaining))
    group, shard = next(groups, None), 0
    while group is not None or not shard:
        with open_shard(shard_file(folder, task, shard), schema) as writer:
            for _ in range(SHARD_ROWS // GROUP_ROWS):
                if group is not None:
                    writer.write_batch(group)
                    group = next(groups, None)
        shard += 1


@dataclass(frozen=True)
class SequenceFolder:
    """A folder that all workers see. A subclass may keep the files of `path` somewhere else."""

    path: Path

    @contextmanager
    def new(self, name: str) -> Iterator[Path]:
        """A file to write; it gets its name once it is whole."""
        with drafted(self.path / name) as draft:
            yield draft

    def open(self, name: str) -> pa.NativeFile:
        """A file written by any worker."""
        return pa.memory_map(str(self.path / name))

    def remove(self, names: Iterable[str]) -> None:
        """Remove files that are no longer needed."""
        for name in names:
            (self.path / name).unlink()

    def write(self, name: str, tables: Iterable[pa.Table], compression: Literal["zstd"] | None = None) -> None:
        """Write at least one table in Arrow's file format; each is a batch that can be read separately."""
        remaining = iter(tables)
        first = next(remaining)
        options = pa.ipc.IpcWriteOptions(compression=compression)
        with self.new(name) as draft, pa.ipc.new_file(str(draft), first.schema, options=options) as writer:
            for table in chain([first], remaining):
                writer.write_table(table.combine_chunks())

    def read(self, name: str) -> pa.Table:
        """A table written by any worker."""
        with self.open(name) as file:
            return pa.ipc.open_file(file).read_all()


@dataclass(frozen=True)
class RowIndex:
    """Facts about a task's rows that need no row: kilobytes, however many rows there are.

    `ranges` are the in-scope rows of each split, counted over all shards; `labels` counts the rows of each label in
    such a range; `shard_rows` are the rows of every shard.
    """

    ranges: Mapping[str, range]
    labels: Mapping[str, Mapping[int, int]]
    shard_rows: tuple[int, ...]

    @classmethod
    def of_shards(cls, shards: Sequence[Path], readable: Callable[[Path], Path | BinaryIO] = Path) -> RowIndex:
        """The index of shards, whose rows lie split by split; reads only split and label, from what `readable` returns.

        Raises ArtefactError for a shard that cannot be read.
        """
        labels: dict[str, Counter[int]] = {}  # in the order of the rows
        shard_rows: list[int] = []
        for shard in shards:
            rows = read_table(readable(shard), columns=["split", "label"])
            shard_rows.append(len(rows))
            groups = rows.group_by(["split", "label"], use_threads=False).aggregate([([], "count_all")])
            for group in groups.to_pylist():
                outside = ", out of scope" if group["label"] == OUT_OF_SCOPE else ""
                labels.setdefault(group["split"] + outside, Counter())[group["label"]] += group["count_all"]
        ends = list(accumulate(map(Counter.total, labels.values()), initial=0))
        ranges = dict(zip(labels, map(range, ends, ends[1:]), strict=True))
        return cls(ranges, {name: dict(sorted(counts.items())) for name, counts in labels.items()}, tuple(shard_rows))
