"""The payload of rows (text, picture, vector) on its way from the shards of a source to those of tasks.

A shard of the source is read again, block by block, and the rows of a block that are kept are written to a file of
their own, sorted by where they go: a record batch for each shard of a task, split by split. A shard of a task is then
joined from these batches. Files go to one folder, by name, so that no worker needs the disk of another.

    places-00002.arrow            what is kept of shard 2 of the source, a record batch for each block, by the driver
    sorted-00002-00000.arrow      the kept rows of its first block
    task-0003.parquet             the first shard of task 3
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kcm.errors import DataError
from kcm.tasks.plan.splits import SPLITS
from kcm.tasks.preparation.facts import blocks
from kcm.tasks.sequence import SCHEMA, VECTOR
from kcm.tasks.shards import in_groups, open_shard, shard_file
from kcm.tasks.sources import Shard


@dataclass(frozen=True)
class SequenceFolder:
    """The folder of a sequence, which all workers see. A subclass may keep the files of `path` somewhere else."""

    path: Path

    @contextmanager
    def new(self, name: str) -> Iterator[Path]:
        """A file to be written, which has its name once it is whole."""
        self.path.mkdir(parents=True, exist_ok=True)
        draft = self.path / f".{uuid.uuid4().hex}"
        try:
            yield draft
            os.replace(draft, self.path / name)
        finally:
            draft.unlink(missing_ok=True)

    def open(self, name: str) -> pa.NativeFile:
        """A file that some worker wrote."""
        return pa.memory_map(str(self.path / name))

    def remove(self, names: Iterable[str]) -> None:
        """Remove files that are needed no more."""
        for name in names:
            (self.path / name).unlink()


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


def write_places(job: SourceShardJob, places: Iterable[pa.Table], folder: SequenceFolder) -> None:
    """Write what is kept of a shard of the source; `places` are those of its blocks."""
    _write_batches(folder, job.places, (table.combine_chunks().to_batches()[0] for table in places))


def sort_shard(job: SourceShardJob, folder: SequenceFolder, parts: Sequence[str]) -> Iterator[pa.Table]:
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
                name = sorted_file(job.number, number)
                _write_batches(folder, name, _sorted_pieces(rows.take(position_N), batch, parts))
            start += len(rows)
    yield pa.table({"shard": [job.number]})


def _sorted_pieces(rows: pa.Table, places: pa.RecordBatch, parts: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows as tasks have them, in a batch for each shard of a task and split."""
    columns = {"text": pa.array([""] * len(rows), pa.string())} | {part: rows[part] for part in parts}
    columns |= {
        "id": rows["id"],
        "label": places["label"].cast(pa.int64()),
        "group": pc.coalesce(places["unit_name"], rows["group"]),
        "split": pa.array(SPLITS, pa.string()).take(places["split"]),
    }
    names = [name for name in (*SCHEMA.names, VECTOR, "split") if name in columns]
    table = pa.table({name: columns[name] for name in names}).combine_chunks()
    ends = (np.flatnonzero(np.diff(places["batch"].to_numpy(), append=-1)) + 1).tolist()
    for begin, end in zip([0, *ends], ends, strict=False):
        yield table.slice(begin, end - begin).to_batches()[0]


def write_task_shard(job: TaskShardJob, folder: SequenceFolder) -> Iterator[pa.Table]:
    """Write a shard of a task; its task, number and the digest of its rows."""
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
    yield pa.table({"task": [job.task], "number": [job.number], "digest": [digest.hexdigest()]})


def _pieces(job: TaskShardJob, folder: SequenceFolder) -> Iterator[pa.Table]:
    files: dict[str, pa.ipc.RecordBatchFileReader] = {}
    for name, batch in job.pieces:
        files[name] = files.get(name) or pa.ipc.open_file(folder.open(name))
        yield pa.Table.from_batches([files[name].get_batch(batch)])


def _write_batches(folder: SequenceFolder, name: str, batches: Iterator[pa.RecordBatch]) -> None:
    first = next(batches)
    with folder.new(name) as draft, pa.ipc.new_file(str(draft), first.schema) as writer:
        for batch in chain([first], batches):
            writer.write_batch(batch)
