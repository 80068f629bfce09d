"""Make a file of every shard: the same rows in the same order, with what a worker makes of them.

A shard is cut into units of some thousand rows. The process that works on a unit writes it to the storage, so a kill
costs the units that were being made, and no node needs the files of another one. When all units are there, those of
each shard are joined.

    scratch/task-0003.00001.0000004096-0000008192.unit    what is made of rows 4,096 to 8,191 of a shard
    folder/task-0003.00001.parquet                        the shard
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from kcm.errors import DataError
from kcm.parquet import open_file, read_table, sound
from kcm.tasks.shards import GROUP_ROWS, SHARD_ROWS, open_shard, shard_file, write_shards
from pipelines.batch.mapping import map_items, map_with_actors
from pipelines.cluster.config import ClusterConfig
from pipelines.progress import Bar
from pipelines.store.artefact import storage_errors
from pipelines.store.storage import AT_ONCE, Storage

UNIT_ROWS = 4 * GROUP_ROWS  # at most
FAILED = "failed: "  # begins the counts of rows that the next attempt makes again, by reason
_COUNTS = "counts"

Counts: TypeAlias = dict[str, float]
RowFunction: TypeAlias = Callable[[pa.Table], tuple[pa.Table, Counts]]
RowReader: TypeAlias = Callable[[Any, int, int], Iterator[pa.Table]]
ResultT = TypeVar("ResultT")
KeyT = TypeVar("KeyT")


@dataclass(frozen=True)
class Unit:
    """Rows `start` to `stop` of a source, such as a shard, and the file of what is made of them."""

    source: Any
    start: int
    stop: int
    target: Path


def unit_rows(num_rows: int, at_least: int) -> int:
    """Rows of a unit: enough units that all workers end at about the same time, and not more than a kill may cost.

    It depends on no number of workers, since what a network computes may depend on which rows it is given together.
    """
    share = num_rows // 32
    return max(at_least, min(UNIT_ROWS, share - share % GROUP_ROWS if share > GROUP_ROWS else share))


def map_shards(
    sources: Mapping[str, Path],
    build: Callable[[], RowFunction],
    folder: Path,
    *,
    rows_per_unit: int = SHARD_ROWS,
    at_least: int | None = None,
    cluster: ClusterConfig | None,
    units_at_once: int = 1,
    scratch: Path,
    storage: Storage,
    bar: Bar,
) -> Counts:
    """Write a file of every shard to `folder`; the sum of what the workers counted.

    `sources` are the shards by the names of their files in `folder`. `build` returns a function that is given at most
    `GROUP_ROWS` rows of a shard, and returns as many rows, and counts. A unit is a whole shard unless `rows_per_unit`
    says less, or `at_least` makes it an equal share of the rows, see `unit_rows`. Units that `scratch` holds from an
    interrupted attempt are not made again, but for those with failed rows. Without `cluster` this process makes all
    units, `units_at_once` by threads. Raises what the function raises, and ArtefactError for a shard that cannot be
    read.
    """
    sizes = sizes_of(sources, storage)
    size = rows_per_unit if at_least is None else unit_rows(sum(sizes.values()), at_least)
    units = {name: units_of(source, sizes[name], size, scratch / name) for name, source in sources.items()}
    read = partial(shard_reader, storage)
    made = map_units(
        units, build, read, cluster=cluster, threads=units_at_once, scratch=scratch, storage=storage, bar=bar
    )
    counts = total(counts for _, counts in made)
    joins = [([unit.target for unit in units[name]], folder / name) for name in sources]
    list(map_items(partial(_join, storage), joins))
    return counts


def map_units(
    units: Mapping[KeyT, Sequence[Unit]],
    build: Callable[[], RowFunction],
    read: Callable[[], RowReader],
    *,
    cluster: ClusterConfig | None,
    scratch: Path,
    storage: Storage,
    bar: Bar,
    threads: int = 1,
    only_here: bool = False,
) -> Iterator[tuple[KeyT, Counts]]:
    """Make the units of each source below `scratch`; the key of each source, and its counts, once all are there.

    `read` returns what reads the rows of a unit, by each worker for itself; see `map_shards` and `map_with_actors`.
    """
    everything = list(chain.from_iterable(units.values()))
    there = set(storage.names(scratch))
    targets = [unit.target for unit in everything if str(unit.target.relative_to(scratch)) in there]
    earlier = zip(targets, _at_once(partial(_counts_of, storage=storage), targets), strict=True)
    known = {target: counts for target, counts in earlier if not any(name.startswith(FAILED) for name in counts)}
    left = [unit for unit in everything if unit.target not in known]
    num_rows = sum(unit.stop - unit.start for unit in everything)
    num_done = num_rows - sum(unit.stop - unit.start for unit in left)
    bar.update(num_done, num_rows)
    made = map_with_actors(
        partial(UnitWriter, build, read, storage), left, cluster, only_here=only_here, threads=threads
    )
    for key, mine in units.items():
        for unit in mine:
            if unit.target not in known:
                known[unit.target] = next(made)
                num_done += unit.stop - unit.start
                bar.update(num_done, num_rows)
        yield key, total(known[unit.target] for unit in mine)


class UnitWriter:
    """Makes units by a function of rows, and writes them to the storage."""

    def __init__(self, build: Callable[[], RowFunction], read: Callable[[], RowReader], storage: Storage) -> None:
        self._function, self._rows, self._storage = build(), read(), storage

    def __call__(self, unit: Unit) -> Counts:
        """Make a unit, and count."""
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


def shard_reader(storage: Storage) -> RowReader:
    """What gives the rows `start` to `stop` of a shard, those of each row group together; an empty table for none.

    Of a shard that is not here the ranges that are needed are fetched. The last row group is held, so that it is read
    once for the units within it.
    """

    @lru_cache(maxsize=1)
    def opened(shard: Path) -> pq.ParquetFile:
        return open_file(storage.readable(shard), pre_buffer=True)

    @lru_cache(maxsize=1)
    def rows_of(shard: Path, group: int) -> pa.Table:
        with sound(shard):
            return opened(shard).read_row_group(group)

    def read(shard: Path, start: int, stop: int) -> Iterator[pa.Table]:
        if start == stop:
            yield opened(shard).schema_arrow.empty_table()
        first = 0
        for group in range(opened(shard).num_row_groups):
            end = first + opened(shard).metadata.row_group(group).num_rows
            if first < stop and start < end:
                yield rows_of(shard, group).slice(max(start - first, 0), min(stop, end) - max(start, first))
            first = end

    return read


def num_rows_of(shard: Path, storage: Storage) -> int:
    """The rows of a shard, from its footer alone. ArtefactError for one that cannot be read."""
    with sound(shard):
        return int(pq.read_metadata(storage.readable(shard)).num_rows)


def sizes_of(shards: Mapping[str, Path], storage: Storage) -> dict[str, int]:
    """The rows of each shard, by the same names, from their footers alone."""
    return dict(zip(shards, _at_once(partial(num_rows_of, storage=storage), shards.values()), strict=True))


def write_shard(storage: Storage, tables: Iterable[pa.Table], target: Path) -> None:
    """Write tables as one shard of the storage, of row groups that are read by index."""
    with tempfile.TemporaryDirectory(prefix="kcm-") as local:
        write_shards(Path(local), 0, tables)
        storage.files.put(storage.name(target), shard_file(Path(local), 0, 0))


def total(parts: Iterable[Mapping[str, float]]) -> Counts:
    """The sum of counts, by name."""
    summed: Counts = {}
    for part in parts:
        summed |= {name: summed.get(name, 0) + count for name, count in part.items()}
    return summed


def units_of(source: Any, num_rows: int, size: int, target: Path) -> list[Unit]:
    """The units of a source; one of no rows for a shard without rows, which tells the columns."""
    ranges = [(start, min(start + size, num_rows)) for start in range(0, max(num_rows, 1), size)]
    return [
        Unit(source, start, stop, target.with_name(f"{target.name}.{start:010}-{stop:010}.unit"))
        for start, stop in ranges
    ]


def _join(storage: Storage, shard: tuple[Sequence[Path], Path]) -> None:
    """Write a shard from its units. One unit is a shard already, which the storage copies by itself."""
    units, target = shard
    if len(units) == 1:
        storage.files.copy(storage.name(units[0]), storage.name(target))
        return
    write_shard(storage, (read_table(storage.readable(unit)).replace_schema_metadata() for unit in units), target)


def _counts_of(unit: Path, storage: Storage) -> Counts:
    """What was counted when a unit was made."""
    return json.loads((pq.read_metadata(storage.readable(unit)).metadata or {})[_COUNTS.encode()])


def _at_once(function: Callable[[Path], ResultT], paths: Iterable[Path]) -> list[ResultT]:
    """The results for files of which little is read, several at a time."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(function, paths))
