"""The payload of rows (text, picture, vector) on its way from the shards of a source to those of tasks.

A shard of the source is read again, block by block. The rows of a block that are kept are written to a file, sorted by
where they go: a record batch for each shard of a task and split. A shard of a task is then joined from these batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kcm.errors import DataError
from kcm.tasks.plan.splits import SPLITS
from kcm.tasks.preparation.facts import blocks
from kcm.tasks.preparation.folder import SequenceFolder
from kcm.tasks.sequence import SCHEMA, VECTOR
from kcm.tasks.shards import in_groups, open_shard, shard_file
from kcm.tasks.sources import Shard


@dataclass(frozen=True)
class SourceShardJob:
    """A shard of the source to be read again; `blocks` are the numbers of those with rows that are kept."""

    number: int
    shard: Shard
    blocks: tuple[int, ...]

    @property
    def places(self) -> str:
        """The name of the file that says what is kept."""
        return f"places-{self.number:05d}.arrow"

    @property
    def sorted_files(self) -> list[str]:
        """The names of the files that hold the kept rows."""
        return [sorted_file(self.number, block) for block in self.blocks]


@dataclass(frozen=True)
class TaskShardJob:
    """A shard of a task to be written, of the batches of sorted files, in order."""

    task: int
    number: int
    pieces: tuple[tuple[str, int], ...]


def sorted_file(shard: int, block: int) -> str:
    """The name of the file with the kept rows of a block."""
    return f"sorted-{shard:05d}-{block:05d}.arrow"


def sort_shard(job: SourceShardJob, folder: SequenceFolder, parts: Sequence[str]) -> None:
    """Read a shard again and write the rows of its blocks that are kept; `parts` are the columns with the payload."""
    start = 0
    with folder.open(job.places) as file:
        places = pa.ipc.open_file(file)
        for number, rows in enumerate(blocks(job.shard.read())):
            if number in job.blocks:
                batch = places.get_batch(job.blocks.index(number))
                position_N = batch["position"].to_numpy() - start
                is_there = position_N.max() < len(rows)
                if not is_there or not rows["id"].take(position_N).combine_chunks().equals(batch["id"]):
                    raise DataError("the rows changed while they were read", where=job.shard.where, hint="Start again")
                table = _as_tasks_have_them(rows.take(position_N), batch, parts)
                ends = (np.flatnonzero(np.diff(batch["batch"].to_numpy(), append=-1)) + 1).tolist()
                pieces = (table.slice(begin, end - begin) for begin, end in zip([0, *ends], ends, strict=False))
                folder.write_batches(sorted_file(job.number, number), table.schema, pieces)
            start += len(rows)


def _as_tasks_have_them(rows: pa.Table, places: pa.RecordBatch, parts: Sequence[str]) -> pa.Table:
    """The columns of a sequence, with the split."""
    columns = {"text": pa.array([""] * len(rows), pa.string())} | {part: rows[part] for part in parts}
    columns |= {
        "id": rows["id"],
        "label": places["label"].cast(pa.int64()),
        "group": pc.coalesce(places["unit_name"], rows["group"]),
        "split": pa.array(SPLITS, pa.string()).take(places["split"]),
    }
    return pa.table({name: columns[name] for name in (*SCHEMA.names, VECTOR, "split") if name in columns})


def write_task_shard(job: TaskShardJob, folder: SequenceFolder) -> str:
    """Write a shard of a task; the digest of its rows."""
    digest = sha256()
    pieces = _pieces(job, folder)
    first = next(pieces)
    with (
        folder.new(shard_file(folder.path, job.task, job.number).name) as draft,
        open_shard(draft, first.schema) as writer,
    ):
        for group in in_groups(chain([first], pieces)):
            writer.write_batch(group)
            digest.update(group.serialize())
    return digest.hexdigest()


def _pieces(job: TaskShardJob, folder: SequenceFolder) -> Iterator[pa.Table]:
    files: dict[str, pa.ipc.RecordBatchFileReader] = {}
    for name, batch in job.pieces:
        files[name] = files.get(name) or pa.ipc.open_file(folder.open(name))
        yield pa.Table.from_batches([files[name].get_batch(batch)])
