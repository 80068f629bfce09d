"""The payload of rows (text, picture, vector) on its way from the blocks of a source to the shards of tasks.

The kept rows of a block are written to pieces: one file for the rows of one split in one shard of a task. A shard of a
task is then joined from its pieces, whose names sort in the order of their rows.

    rows-00002-000000131072.arrow                  a block: rows of shard 2 of the source, from row 131,072 on
    places-00002-000000131072.arrow                their target positions
    task-0003-00001-00-00002-000000131072.arrow    the rows for shard 1 of task 3: split 0, in scope
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

from kcm.tasks.preparation.facts import SourceBlock
from kcm.tasks.sequence import SCHEMA, VECTOR
from kcm.tasks.shards import SequenceFolder, in_groups, open_shard, shard_file
from kcm.tasks.splits import SPLITS


def target_of(piece: str) -> tuple[int, int]:
    """The task and the shard number of a piece."""
    _, task, shard, *_ = piece.split("-")
    return int(task), int(shard)


def write_pieces(block: SourceBlock, folder: SequenceFolder, parts: Sequence[str]) -> list[str]:
    """Write the kept rows of a block; returns the names of the pieces. `parts` are the payload's columns."""
    rows, places = folder.read(block.file("rows")), folder.read(block.file("places"))
    table = _as_tasks_have_them(rows.take(pc.subtract(places["position"], block.start)), places, parts)
    pieces = []
    for target in places["target"].unique().to_pylist():
        pieces.append(block.file(target))
        folder.write(pieces[-1], table.filter(pc.equal(places["target"], target)))
    return pieces


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
    """Write a shard of a task from its pieces, in order; returns the digest of its rows."""
    digest = sha256()
    tables = map(folder.read, pieces)
    first = next(tables)
    name = shard_file(folder.path, *target_of(pieces[0])).name
    with folder.new(name) as draft, open_shard(draft, first.schema) as writer:
        for group in in_groups(chain([first], tables)):
            writer.write_batch(group)
            digest.update(group.serialize())
    return digest.hexdigest()
