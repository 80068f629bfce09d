"""Units of rows: the output of each unit is a file of the storage, so a kill loses only the unfinished units.

The process that works on a unit writes it to the storage, and no node needs the files of another node.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from kcm.errors import DataError
from kcm.tasks.shards import GROUP_ROWS, open_shard
from pipelines.progress import Bar
from pipelines.store.artefact import storage_errors
from pipelines.store.storage import Storage, at_once

UNIT_ROWS = 4 * GROUP_ROWS  # at most
FAILED = "failed: "  # prefix of the counts, by reason, of rows that the next attempt retries
_COUNTS = "counts"

Counts: TypeAlias = dict[str, float]
RowFunction: TypeAlias = Callable[[pa.Table], tuple[pa.Table, Counts]]
RowReader: TypeAlias = Callable[[Any, int, int], Iterator[pa.Table]]
KeyT = TypeVar("KeyT")


@dataclass(frozen=True)
class Unit:
    """Rows `start` to `stop` of a source, such as a shard, and the file for their output."""

    source: Any
    start: int
    stop: int
    target: Path


UnitMapper: TypeAlias = Callable[[Callable[[], Callable[[Unit], Counts]], Sequence[Unit]], Generator[Counts]]
"""Makes units, in order, with functions that each worker builds once."""


def unit_rows(num_rows: int, at_least: int) -> int:
    """Rows of a unit: small enough that all workers end at about the same time and a kill loses little.

    It does not depend on the number of workers, since the output of a network may depend on the rows of its batch.
    """
    share = num_rows // 32
    return max(at_least, min(UNIT_ROWS, share - share % GROUP_ROWS if share > GROUP_ROWS else share))


def map_units(
    units: Mapping[KeyT, Sequence[Unit]],
    build: Callable[[], RowFunction],
    read: Callable[[], RowReader],
    *,
    mapper: UnitMapper,
    scratch: Path,
    storage: Storage,
    bar: Bar,
) -> Iterator[tuple[KeyT, Counts]]:
    """Make the units of each source below `scratch`; yields the key and the counts of each source when all units exist.

    Each worker calls `build` and `read` once, for the function and the reader of its units; see `map_shards`. `mapper`
    decides where the units are made: in this process, or on a cluster.
    """
    everything = list(chain.from_iterable(units.values()))
    there = set(storage.names(scratch))
    targets = [unit.target for unit in everything if str(unit.target.relative_to(scratch)) in there]
    earlier = zip(targets, at_once(partial(_counts_of, storage=storage), targets), strict=True)
    known = {target: counts for target, counts in earlier if not any(name.startswith(FAILED) for name in counts)}
    left = [unit for unit in everything if unit.target not in known]
    num_rows = sum(unit.stop - unit.start for unit in everything)
    num_done = num_rows - sum(unit.stop - unit.start for unit in left)
    bar.update(num_done, num_rows)
    with closing(mapper(partial(UnitWriter, build, read, storage), left)) as results:
        for key, source_units in units.items():
            for unit in source_units:
                if unit.target not in known:
                    known[unit.target] = next(results)
                    num_done += unit.stop - unit.start
                    bar.update(num_done, num_rows)
            yield key, total(known[unit.target] for unit in source_units)


class UnitWriter:
    """Makes units with a function of rows, and writes them to the storage."""

    def __init__(self, build: Callable[[], RowFunction], read: Callable[[], RowReader], storage: Storage) -> None:
        self._function, self._rows, self._storage = build(), read(), storage

    def __call__(self, unit: Unit) -> Counts:
        """Make a unit; returns its counts."""
        counts: Counts = {}
        with storage_errors(unit.target), tempfile.TemporaryDirectory(prefix="kcm-") as local:
            file, writer = Path(local, unit.target.name), None
            for rows in self._rows(unit.source, unit.start, unit.stop):
                try:
                    table, counted = self._function(rows)
                except DataError as error:
                    error.where = error.where or str(unit.source)
                    raise
                writer = writer or open_shard(file, table.schema)
                writer.write_table(table)
                counts = total((counts, counted))
            assert writer is not None  # a unit without rows is one empty table
            writer.add_key_value_metadata({_COUNTS: json.dumps(counts, sort_keys=True)})
            writer.close()
            self._storage.files.put(self._storage.name(unit.target), file)
        return counts


def units_of(source: Any, num_rows: int, size: int, target: Path) -> list[Unit]:
    """The units of a source. A shard without rows has one empty unit, which holds the columns."""
    ranges = [(start, min(start + size, num_rows)) for start in range(0, max(num_rows, 1), size)]
    return [
        Unit(source, start, stop, target.with_name(f"{target.name}.{start:010}-{stop:010}.unit"))
        for start, stop in ranges
    ]


def total(parts: Iterable[Mapping[str, float]]) -> Counts:
    """The sum of counts, by name."""
    summed: Counts = {}
    for part in parts:
        summed |= {name: summed.get(name, 0) + count for name, count in part.items()}
    return summed


def _counts_of(unit: Path, storage: Storage) -> Counts:
    """The counts of a finished unit."""
    return json.loads((pq.read_metadata(storage.readable(unit)).metadata or {})[_COUNTS.encode()])
