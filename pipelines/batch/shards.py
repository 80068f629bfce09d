"""Write a file for every shard: the same rows in the same order, as a worker has transformed them.

A shard is cut into units of some thousand rows. The process that works on a unit writes it to the storage, so a kill
loses only the unfinished units, and no node needs the files of another node. When all units exist, the units of each
shard are joined.

    scratch/task-0003.00001.0000004096-0000008192.unit    the output for rows 4,096 to 8,191 of a shard
    folder/task-0003.00001.parquet                        the shard
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from kcm.parquet import open_file, read_table, sound
from kcm.tasks.shards import SHARD_ROWS, shard_file, write_shards
from pipelines.batch.mapping import map_items, map_with_actors
from pipelines.batch.units import Counts, RowFunction, RowReader, map_units, total, unit_rows, units_of
from pipelines.context import Attempt
from pipelines.store.storage import Storage, at_once


def map_shards(
    attempt: Attempt,
    sources: Mapping[str, Path],
    build: Callable[[], RowFunction],
    folder: Path,
    scratch: Path,
    *,
    rows_per_unit: int = SHARD_ROWS,
    at_least: int | None = None,
    threads: int | None = None,
) -> Counts:
    """Write a file for every shard to `folder`; returns the sum of the workers' counts.

    `sources` are the shards by the names of their files in `folder`. `build` returns a function from at most
    `GROUP_ROWS` rows of a shard to as many rows, and counts. A unit is a whole shard unless `rows_per_unit` is smaller,
    or `at_least` makes it an equal share of the rows, see `unit_rows`. Units that an interrupted attempt left in
    `scratch` are reused, except units with failed rows. With `threads`, this process makes all units, that many at a
    time. Raises the errors of the function, and ArtefactError for a shard that cannot be read.
    """
    storage, cluster = attempt.context.store.storage, None if threads else attempt.context.cluster
    sizes = sizes_of(sources, storage)
    size = rows_per_unit if at_least is None else unit_rows(sum(sizes.values()), at_least)
    units = {name: units_of(source, sizes[name], size, scratch / name) for name, source in sources.items()}
    read = partial(shard_reader, storage)
    mapper = partial(map_with_actors, cluster=cluster, threads=threads or 1)
    counts_by_shard = map_units(units, build, read, mapper=mapper, scratch=scratch, storage=storage, bar=attempt.bar)
    counts = total(counts for _, counts in counts_by_shard)
    joins = [([unit.target for unit in units[name]], folder / name) for name in sources]
    list(map_items(partial(_join, storage), joins))
    return counts


def shard_reader(storage: Storage) -> RowReader:
    """A function for the rows `start` to `stop` of a shard, a row group at a time; an empty table for none.

    Only the needed ranges of a remote shard are fetched. The last row group is kept, so that all units within it read
    it once.
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
    """The rows of a shard, from its footer alone. ArtefactError if the shard cannot be read."""
    with sound(shard):
        return int(pq.read_metadata(storage.readable(shard)).num_rows)


def sizes_of(shards: Mapping[str, Path], storage: Storage) -> dict[str, int]:
    """The rows of each shard, by the same names, from their footers alone."""
    return dict(zip(shards, at_once(partial(num_rows_of, storage=storage), shards.values()), strict=True))


def write_shard(storage: Storage, tables: Iterable[pa.Table], target: Path) -> None:
    """Write tables as one shard of the storage, of row groups that are read by index."""
    with tempfile.TemporaryDirectory(prefix="kcm-") as local:
        write_shards(Path(local), 0, tables)
        storage.files.put(storage.name(target), shard_file(Path(local), 0, 0))


def _join(storage: Storage, shard: tuple[Sequence[Path], Path]) -> None:
    """Write a shard from its units. A single unit is a shard already: the storage copies it."""
    units, target = shard
    if len(units) == 1:
        storage.files.copy(storage.name(units[0]), storage.name(target))
        return
    write_shard(storage, (read_table(storage.readable(unit)).replace_schema_metadata() for unit in units), target)
