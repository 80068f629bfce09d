"""The payload of rows (text, picture, vector) on its way from the shards of a source to those of tasks.

A shard of the source is read again, block by block. The rows of a block that are kept are written to pieces: a file for
the rows that go to the same split of the same shard of a task. A shard of a task is then joined from its pieces, whose
names are in the order of their rows.

    places-00002.parquet                           where the rows of shard 2 of the source go
    task-0003-00001-00-00002-000000131072.arrow    rows for shard 1 of task 3: split 0, in scope; of shard 2, from row
                                                   131,072 on
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kcm.errors import DataError
from kcm.tasks.plan.splits import SPLITS
from kcm.tasks.preparation.facts import blocks
from kcm.tasks.sequence import SCHEMA, VECTOR
from kcm.tasks.shards import SequenceFolder, in_groups, open_shard, shard_file
from kcm.tasks.sources import Shard


@dataclass(frozen=True)
class SourceShardJob:
    """A shard of the source to be read again, which had `num_rows` when it was read before."""

    number: int
    shard: Shard
    num_rows: int

    @property
    def places(self) -> str:
        """The name of the file that says where its rows go."""
        return f"places-{self.number:05d}.parquet"


def target_of(piece: str) -> tuple[int, int]:
    """The task of a piece, and the number of its shard."""
    _, task, shard, *_ = piece.split("-")
    return int(task), int(shard)


def write_pieces(job: SourceShardJob, folder: SequenceFolder, parts: Sequence[str]) -> list[str]:
    """Read a shard again and write the rows that are kept; the names of the pieces. `parts` are the payload's columns.

    Raises DataError where the rows are not those of the first reading.
    """
    pieces, start = [], 0
    for rows in blocks(job.shard.read()):
        stop, position = start + len(rows), pc.field("position")
        with folder.open(job.places) as file:
            places = pq.read_table(file, filters=(position >= start) & (position < stop))
        kept = rows.take(pc.subtract(places["position"], start))
        if not kept["id"].equals(places["id"]):
            raise _changed(job.shard)
        table = _as_tasks_have_them(kept, places, parts)
        for target in places["target"].unique().to_pylist():
            name = f"{target}-{job.number:05d}-{start:012d}.arrow"
            folder.write_batches(name, table.schema, [table.filter(pc.equal(places["target"], target))])
            pieces.append(name)
        start = stop
    if start != job.num_rows:
        raise _changed(job.shard)
    return pieces


def _changed(shard: Shard) -> DataError:
    return DataError("the rows changed while they were read", where=shard.where, hint="Start again")


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


def write_task_shard(pieces: Sequence[str], folder: SequenceFolder) -> str:
    """Write a shard of a task from its pieces, in order; the digest of its rows."""
    digest = sha256()
    tables = (pa.ipc.open_file(folder.open(name)).read_all() for name in pieces)
    first = next(tables)
    name = shard_file(folder.path, *target_of(pieces[0])).name
    with folder.new(name) as draft, open_shard(draft, first.schema) as writer:
        for group in in_groups(chain([first], tables)):
            writer.write_batch(group)
            digest.update(group.serialize())
    return digest.hexdigest()
