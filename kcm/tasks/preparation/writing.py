"""The last pass: the shards of all tasks, planned by the counts of every block, written by the places of its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kcm.tasks.plan.splits import SPLITS, Split
from kcm.tasks.preparation.blocks import Block
from kcm.tasks.preparation.digests import as_names
from kcm.tasks.preparation.placing import NUM_LOTS, PLACE, Placed, Placement
from kcm.tasks.preparation.splitting import states
from kcm.tasks.sequence import SCHEMA
from kcm.tasks.shards import GROUP_ROWS, SHARD_ROWS, ShardWriter
from kcm.tasks.summary import Summary


@dataclass(frozen=True)
class ShardPlan:
    """A shard of a task: `pieces` are blocks, and the places in them that the shard has, in order, by split."""

    task: int
    shard: int
    pieces: tuple[tuple[Split, Block, int, int], ...]  # split, block, first and last place


@dataclass(frozen=True)
class PlacedRows:
    """Where the rows of all tasks lie: what `place` counted of every block, by the same placement."""

    placement: Placement
    blocks: list[Placed]
    long_tail: tuple[str, ...] = ()

    @property
    def cells(self) -> Counter[tuple[int, int, int]]:
        """Rows with a label of the list, by task, split and label."""
        cells: Counter[tuple[int, int, int]] = Counter()
        for block in self.blocks:
            cells.update(block.cells)
        return cells

    def counts(self) -> np.ndarray:
        """Rows of every task, split and lot, [T, splits, lots]."""
        return sum(block.rows for block in self.blocks).reshape(-1, len(SPLITS), NUM_LOTS)  # type: ignore[union-attr]

    def labelled(self) -> list[int]:
        """Rows of every task, without those that nobody labelled."""
        counts = self.counts()
        pool: list[int] = (counts.sum(axis=(1, 2)) - counts[:, SPLITS.index("train"), 1]).tolist()
        return pool

    def shards(self, blocks: Sequence[Block], task: int) -> Iterator[ShardPlan]:
        """The shards of a task: split by split, rows without a label last, in the order of the source."""
        pieces, room, shard = [], SHARD_ROWS, 0
        for split in range(len(SPLITS)):
            for lot in range(NUM_LOTS):
                segment = (task * len(SPLITS) + split) * NUM_LOTS + lot
                for block, placed in zip(blocks, self.blocks, strict=True):
                    start = int(placed.rows[:segment].sum())
                    stop = start + int(placed.rows[segment])
                    while start < stop:
                        size = min(stop - start, room)
                        pieces.append((SPLITS[split], block, start, start + size))
                        start, room = start + size, room - size
                        if not room:
                            yield ShardPlan(task, shard, tuple(pieces))
                            pieces, room, shard = [], SHARD_ROWS, shard + 1
        if pieces:
            yield ShardPlan(task, shard, tuple(pieces))

    def summary(self, num_bad: int, num_overlapping: int, num_repeating: int) -> Summary:
        """The figures on the rows that a run prints."""
        placement, cells = self.placement, self.cells
        labels: Counter[str] = Counter(dict.fromkeys(placement.labels, 0))
        for (_, _, label), count in cells.items():
            labels[placement.labels[label]] += count
        rows, units = {}, {}
        for task, (name, counts) in enumerate(zip(placement.plan.names, self.counts().sum(axis=2), strict=True)):
            rows[name] = dict(zip(SPLITS, counts.tolist(), strict=True))
            groups = [block.groups[task] for block in self.blocks if task in block.groups]
            lone = sum(block.lone.get(task, 0) for block in self.blocks)
            units[name] = lone + (len(np.unique(np.concatenate(groups))) if groups else 0)
        return Summary(dict(labels), rows, units, num_bad, num_overlapping, num_repeating)


def write_shard(job: ShardPlan, folder: Path) -> str:
    """Write a shard, and give the digest of its rows."""
    digest = sha256()
    tables = _rows(job)
    first = next(tables)
    with ShardWriter(folder, job.task, first.schema, first_shard=job.shard) as writer:
        for table in _aligned(first, tables):
            writer.write(table)
            for values in _bytes(table):
                digest.update(values)
    return digest.hexdigest()


def _rows(job: ShardPlan) -> Iterator[pa.Table]:
    """The rows of a shard, some at a time: pictures are large."""
    for split, block, start, stop in job.pieces:
        payload, content_N, repeats_N = block.payload(), block.facts().content, states(block)["repeats"]
        places = np.fromfile(block.file("places"), PLACE, stop - start, offset=start * PLACE.itemsize)
        step = GROUP_ROWS if {"image", "vector"} & set(payload.column_names) else 16 * GROUP_ROWS
        for begin in range(0, len(places), step):
            part = places[begin : begin + step]
            rows = payload.take(pa.array(part["row"]))
            columns = {name: rows[name] for name in rows.column_names}
            if (repeats_n := repeats_N[part["row"]]).any():
                names = pa.array([f"content {name}" for name in as_names(content_N[part["row"]])])
                columns["group"] = pc.if_else(pa.array(repeats_n), names, columns["group"])
            columns["label"] = pa.array(part["label"].astype(np.int64))
            columns.setdefault("text", pa.array([""] * len(rows), pa.string()))
            columns["split"] = pa.array([split] * len(rows), pa.string())
            yield pa.table({name: columns[name] for name in (*SCHEMA.names, "vector", "split") if name in columns})


def _aligned(first: pa.Table, others: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in row groups, whatever the pieces in which they come: a digest over them depends on rows alone."""
    waiting = first
    while True:
        whole = len(waiting) - len(waiting) % GROUP_ROWS
        for start in range(0, whole, GROUP_ROWS):
            yield waiting.slice(start, GROUP_ROWS).combine_chunks()
        waiting = waiting.slice(whole)
        more = next(others, None)
        if more is None:
            break
        waiting = pa.concat_tables([waiting, more])
    if len(waiting):
        yield waiting.combine_chunks()


def _bytes(table: pa.Table) -> Iterator[bytes | memoryview]:
    """The values of a row group, column by column, for a digest."""
    for name in table.column_names:
        column = table[name].chunk(0)
        yield name.encode()
        if pa.types.is_fixed_size_list(column.type):
            yield column.flatten().to_numpy().tobytes()
        elif pa.types.is_integer(column.type):
            yield column.to_numpy().tobytes()
        else:
            _, offsets, data = column.buffers()
            width = np.int64 if pa.types.is_large_binary(column.type) else np.int32
            bounds = np.frombuffer(offsets, width)[column.offset : column.offset + len(column) + 1].astype(np.int64)
            yield np.diff(bounds).tobytes()
            if data is not None:
                yield memoryview(data)[bounds[0] : bounds[-1]]
