"""Pieces of shards: what is made of some rows of a shard, committed as one file, and all pieces of a shard joined."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kcm.parquet import open_file, read_table, sound
from kcm.tasks.shards import GROUP_ROWS, open_shard
from pipelines.store.storage import AT_ONCE, Storage

ROWS_AT_ONCE = 16 * GROUP_ROWS  # that a worker is given, and holds, at most
_TOOK = b"took"

UNFINISHED = "unfinished: "  # begins the names of counts of unfinished rows, by reason
Took: TypeAlias = dict[str, float]  # what rows took together, such as tokens


class Worker(Protocol):
    """What is done to the rows of a shard.

    `unfinished` is a boolean column of what is made, true for rows that the next attempt makes again; None where there
    is none.
    """

    unfinished: ClassVar[str | None]

    def __call__(self, rows: pa.Table, source: Path) -> tuple[pa.Table, Took]:
        """The rows that are made of `rows` of a shard, as many and in the same order, and what they took."""


@dataclass(frozen=True)
class Job:
    """Rows `start` to `stop` of a shard, and where what is made of them goes; or `parts` of it, to be joined there."""

    name: str
    source: Path
    start: int
    stop: int
    target: Path
    parts: tuple[Path, ...] = ()
    is_made: bool = False  # by an earlier attempt

    @property
    def is_whole(self) -> bool:
        """Whether a whole shard comes of it."""
        return self.target.name == self.name


def make(work: Worker, job: Job, read: RowsAhead) -> None:
    """Commit what is made of the rows of a piece."""
    took: Took = {}

    def made() -> Iterator[pa.Table]:
        for rows in read(job.source, job.start, job.stop):
            table, spent = work(rows, job.source)
            took.update(total((took, spent)))
            yield table

    _commit(made(), job.target, took)


def make_again(work: Worker, unfinished: str, job: Job, read: RowsAhead) -> None:
    """Make the rows anew of which the column `unfinished` is true, of a piece that an earlier attempt has committed."""
    again_N = read_table(job.target, columns=[unfinished])[unfinished].to_numpy()
    if not again_N.any():
        return
    earlier = read_table(job.target).replace_schema_metadata()
    rows = pa.concat_tables(read(job.source, job.start, job.stop)).filter(pa.array(again_N))
    table, spent = work(rows, job.source)
    kept = earlier.filter(pa.array(~again_N))
    order_N = np.argsort(np.concatenate([np.flatnonzero(~again_N), np.flatnonzero(again_N)]))
    whole = pa.concat_tables([kept, table.cast(kept.schema)]).take(pa.array(order_N))
    before = {name: count for name, count in took_of(job.target).items() if not name.startswith(UNFINISHED)}
    _commit([whole], job.target, total((before, spent)))


def join_pieces(parts: Sequence[Path], target: Path) -> None:
    """Make a shard of its pieces, in their order."""
    took = total(took_of(part) for part in parts)
    _commit((read_table(part).replace_schema_metadata() for part in parts), target, took)


def _commit(tables: Iterable[pa.Table], target: Path, took: Took) -> None:
    """Write tables as one file of row groups that are read by index, which appears when it is whole."""
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    writer, waiting = None, []
    try:
        for table in tables:
            writer = writer or open_shard(draft, table.schema)
            waiting.append(table)
            if sum(map(len, waiting)) >= ROWS_AT_ONCE:
                whole = pa.concat_tables(waiting)
                groups = len(whole) - len(whole) % GROUP_ROWS
                writer.write_table(whole.slice(0, groups), row_group_size=GROUP_ROWS)
                waiting = [whole.slice(groups)]
        assert writer is not None  # a shard without rows gives one empty table
        writer.write_table(pa.concat_tables(waiting), row_group_size=GROUP_ROWS)
        writer.add_key_value_metadata({_TOOK.decode(): json.dumps(took, sort_keys=True)})
        writer.close()
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)


def sizes_of(shards: Mapping[str, Path], storage: Storage) -> dict[str, int]:
    """The rows of every shard by its name, from footers alone. ArtefactError for one that cannot be read."""

    def size_of(shard: Path) -> int:
        with sound(shard):
            return int(pq.read_metadata(storage.readable(shard)).num_rows)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(shards, pool.map(size_of, shards.values()), strict=True))


class RowsAhead:
    """Rows of shards by their numbers; the row group that follows is read meanwhile.

    Two row groups are held, so that pieces of one are read once. Of a shard that is not here ranges are fetched, and
    nothing is left on disk. ArtefactError for a shard that cannot be read.
    """

    def __init__(self, storage: Storage) -> None:
        self._readable, self._thread = storage.readable, ThreadPoolExecutor(1)
        self._shard: Path | None = None
        self._held: dict[int, Future[pa.Table]] = {}

    def __call__(self, shard: Path, start: int, stop: int) -> Iterator[pa.Table]:
        """Rows `start` to `stop`, at most `ROWS_AT_ONCE` at a time; one empty table where there is none."""
        self._open(shard)
        if stop <= start:
            yield self._file.schema_arrow.empty_table()
        for first in range(start, stop, ROWS_AT_ONCE):
            yield pa.concat_tables(self._slices(first, min(first + ROWS_AT_ONCE, stop)))

    def _open(self, shard: Path) -> None:
        if shard == self._shard:
            return
        self._source = self._readable(shard)
        self._file = open_file(self._source, pre_buffer=True)
        sizes = [self._file.metadata.row_group(group).num_rows for group in range(self._file.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self._shard, self._held = shard, {}

    def _slices(self, start: int, stop: int) -> Iterator[pa.Table]:
        while start < stop:
            group = int(np.searchsorted(self._starts, start, side="right")) - 1
            first, last = self._starts[group : group + 2].tolist()
            yield self._group(group).slice(start - first, min(last, stop) - start)
            start = last

    def _group(self, group: int) -> pa.Table:
        wanted = range(group, min(group + 2, self._file.num_row_groups))
        read = self._file.read_row_group
        self._held = {each: self._held.get(each) or self._thread.submit(read, each) for each in wanted}
        with sound(self._source):
            return self._held[group].result()


def took_of(file: Path | BinaryIO) -> Took:
    """What the rows of a file took."""
    found = (pq.read_metadata(file).metadata or {}).get(_TOOK, b"{}")
    took: Took = json.loads(found)
    return took


def total(parts: Iterable[Took]) -> Took:
    summed: Took = {}
    for part in parts:
        summed |= {name: summed.get(name, 0) + count for name, count in part.items()}
    return summed
