"""The payload of rows (text, picture, vector): from the blocks of a source to the shards of tasks.

It is written twice, as the source is read and as part of a task. The database knows where a row goes.

    rows-0000020000020000.arrow     a block: the usable rows of shard 2 of the source, from row 131,072 on
    places-task-0003.00001.arrow    for each row of shard 1 of task 3, in order: its block and its index in it
    task-0003.00001.parquet         the shard
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import chain, pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kcm.tasks.preparation.facts import block_file
from kcm.tasks.sequence import SCHEMA, VECTOR
from kcm.tasks.shards import SequenceFolder, in_groups, open_shard, shard_file
from kcm.tasks.splits import SPLITS

Target = tuple[int, int]  # a task, and the number of one of its shards


def places_file(target: Target) -> str:
    """The name of the file with the places of a shard's rows."""
    task, shard = target
    return f"places-task-{task:04d}.{shard:05d}.arrow"


def write_task_shard(target: Target, folder: SequenceFolder, parts: Sequence[str]) -> str:
    """Write a shard of a task from the blocks of its rows; returns the digest of its rows.

    `parts` are the payload's columns. At most one block is in memory.
    """
    digest = sha256()
    tables = _tables(folder.read(places_file(target)), folder, parts)
    first = next(tables)
    with folder.new(shard_file(folder.path, *target).name) as draft, open_shard(draft, first.schema) as writer:
        for group in in_groups(chain([first], tables)):
            writer.write_batch(group)
            digest.update(group.serialize())
    return digest.hexdigest()


def _tables(places: pa.Table, folder: SequenceFolder, parts: Sequence[str]) -> Iterator[pa.Table]:
    """The rows at the given places, in their order, block by block."""
    block_N = places["block"].to_numpy()
    starts = np.flatnonzero(np.diff(block_N, prepend=-1)).tolist()
    for start, stop in pairwise([*starts, len(places)]):
        part = places.slice(start, stop - start)
        with folder.open(block_file("rows", block_N[start])) as file:
            yield _as_tasks_have_them(_taken(pa.ipc.open_file(file), part["row"].to_numpy()), part, parts)


def _taken(block: pa.RecordBatchFileReader, row_N: np.ndarray) -> pa.Table:
    """Rows of a block by their indices; only batches with such rows are read."""
    size = block.get_batch(0).num_rows  # of all batches but the last
    batches, position_N = np.unique(row_N // size, return_inverse=True)
    table = pa.Table.from_batches([block.get_batch(batch) for batch in batches.tolist()])
    return table.take(pa.array(position_N * size + row_N % size))


def _as_tasks_have_them(rows: pa.Table, places: pa.Table, parts: Sequence[str]) -> pa.Table:
    """The columns of a sequence, with the split."""
    columns = {"text": pa.array([""] * len(rows), pa.string())} | {part: rows[part] for part in parts}
    columns |= {
        "id": rows["id"],
        "label": places["label"].cast(pa.int64()),
        "group": pc.coalesce(places["unit_name"], rows["group"]),
        "split": pa.array(SPLITS, pa.string()).take(places["split"].combine_chunks()),
    }
    return pa.table({name: columns[name] for name in (*SCHEMA.names, VECTOR, "split") if name in columns})
