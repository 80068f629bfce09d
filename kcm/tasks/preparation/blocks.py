"""Blocks: some rows of a source, cleaned, in files of their own that every later pass reads. N usable rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kcm.tasks.preparation.cleaning import Cleaned, Rules, clean
from kcm.tasks.preparation.digests import DIGEST
from kcm.tasks.preparation.exchange import RecordFile, records_of
from kcm.tasks.shards import SHARD_ROWS
from kcm.tasks.sources import Shard

_MOST_BYTES = 64 << 20  # of a block, so that pictures fit in memory as well
_SHARD_BITS = 40  # a shard's place among others, above that of a row in it
_FACTS = ("label", "task", "position", "origin", "draw")  # of every row; what no pass but the last reads is payload


@dataclass(frozen=True)
class Block:
    """Rows of a shard that lie together, on disk.

    `start` is the first one's place in the shard, `num_rows` counts bad ones as well, `origins` are the given splits
    that occur, as in `Cleaned`; `ids` the ids' digests, each with its first row.
    """

    folder: Path
    shard: int
    number: int
    start: int
    num_rows: int
    num_bad: int
    origins: frozenset[int]
    ids: RecordFile

    def file(self, what: str) -> Path:
        """Where the block keeps what a pass leaves."""
        return self.folder / f"{what}-{self.shard:05d}-{self.number:05d}"

    def payload(self) -> pa.Table:
        """Id, group and the parts that are read, of all usable rows; mapped, not read."""
        return _mapped(self.file("payload"))

    def faults(self) -> pa.Table:
        """Position in the shard, id and reason of the bad rows."""
        return _mapped(self.file("faults"))

    def facts(self) -> Facts:
        """What decides the split and the task of the usable rows."""
        table = _mapped(self.file("facts"))
        return Facts(self, table, *(_digests(table[name]) for name in ("id", "content", "unit")))


@dataclass(frozen=True)
class Facts:
    """What decides the split and the task of a block's usable rows: the columns of a table, and digests [N]."""

    block: Block
    table: pa.Table
    ids: NDArray[np.void]
    content: NDArray[np.void]
    unit: NDArray[np.void]

    def __len__(self) -> int:
        return len(self.table)

    @property
    def position(self) -> NDArray[np.int64]:
        """The place of each row in its shard, [N]."""
        return np.asarray(self.table["position"])

    @property
    def index(self) -> NDArray[np.int64]:
        """A number of each row that grows in the order of the source, [N]."""
        return index_of(self.block.shard, self.position)

    @property
    def origin(self) -> NDArray[np.int8]:
        """The given split of each row, [N]."""
        return np.asarray(self.table["origin"])

    @property
    def draw(self) -> NDArray[np.float64]:
        """The draw of each row's unit, [N]."""
        return np.asarray(self.table["draw"])

    @property
    def grouped(self) -> NDArray[np.bool_]:
        """Which rows have a group, [N]."""
        return np.asarray(self.unit != self.content)

    def coded(self, column: str) -> tuple[NDArray[np.int32], list[str]]:
        """A column as places in the list of its values, in the order in which they come, [N]."""
        encoded = _only(self.table[column]).dictionary_encode()
        return encoded.indices.to_numpy(), encoded.dictionary.to_pylist()


def index_of(shard: int, position: NDArray[np.int64]) -> NDArray[np.int64]:
    """A number for rows of a shard that grows in the order of the source; it is never 0."""
    return (np.int64(shard) << np.int64(_SHARD_BITS)) + position + 1


def clean_shard(job: tuple[int, Shard], rules: Rules, folder: Path) -> list[Block]:
    """Read and clean a shard, some rows at a time; `job` is its place among the shards, and itself."""
    shard, source = job
    blocks: list[Block] = []
    start = 0
    for number, table in enumerate(_joined(source.read())):
        blocks.append(_write(clean(table, rules), folder, shard, number, start, len(table)))
        start += len(table)
    return blocks


def _joined(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Tables of about as many rows as a shard of a task has, or of some megabytes."""
    waiting: list[pa.Table] = []
    num_rows = num_bytes = 0
    for table in tables:
        for start in range(0, len(table), SHARD_ROWS):
            part = table.slice(start, SHARD_ROWS)
            if waiting and (num_rows + len(part) > SHARD_ROWS or num_bytes + part.nbytes > _MOST_BYTES):
                yield pa.concat_tables(waiting)
                waiting, num_rows, num_bytes = [], 0, 0
            waiting.append(part)
            num_rows, num_bytes = num_rows + len(part), num_bytes + part.nbytes
    if waiting:
        yield pa.concat_tables(waiting)


def _write(cleaned: Cleaned, folder: Path, shard: int, number: int, start: int, num_rows: int) -> Block:
    rows, faults = cleaned.rows, cleaned.faults
    position = np.asarray(rows["position"]) + start
    block = Block(
        folder,
        shard,
        number,
        start,
        num_rows,
        len(faults),
        frozenset(np.unique(np.asarray(rows["origin"])).tolist()),
        RecordFile.write(
            folder / f"ids-{shard:05d}-{number:05d}",
            records_of(cleaned.ids, index_of(shard, position).astype(np.uint64), np.minimum),
        ),
    )
    facts = rows.select(_FACTS).set_column(_FACTS.index("position"), "position", pa.array(position))
    for name, digests in (("id", cleaned.ids), ("content", cleaned.content), ("unit", cleaned.unit)):
        facts = facts.append_column(name, _stored(digests))
    _keep(block.file("facts"), facts)
    _keep(block.file("payload"), rows.drop_columns(["label", "task", "position", "origin", "draw"]))
    position = pa.array(np.asarray(faults["position"]) + start)
    _keep(block.file("faults"), faults.set_column(0, "position", position))
    return block


def _stored(digests: NDArray[np.void]) -> pa.Array:
    data = pa.py_buffer(np.ascontiguousarray(digests))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(DIGEST.itemsize), len(digests), [None, data])


def _digests(column: pa.ChunkedArray) -> NDArray[np.void]:
    return np.frombuffer(_only(column).buffers()[1], DIGEST) if len(column) else np.empty(0, DIGEST)


def _keep(path: Path, table: pa.Table) -> None:
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table.combine_chunks())


def _mapped(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


def _only(column: pa.ChunkedArray) -> pa.Array:
    """A column of a table that was written in one piece."""
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)
