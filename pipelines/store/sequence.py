"""Artefacts in shards, and the task sequence: its rows, their names, and encoders fitted on some rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kcm.certification.ledger import CONTENT, GROUP, Hashes, unit_hashes
from kcm.inputs.content import Content
from kcm.inputs.vectors import matrix
from kcm.parquet import read_table
from kcm.tasks.preparation.earlier import EarlierTasks
from kcm.tasks.sequence import DESCRIPTION, UNITS, VECTOR, Summary, read_description, read_shard, read_summary
from kcm.tasks.shards import task_shards
from kcm.tasks.units import unit_digest
from pipelines.store.artefact import Artefact

_SHARD = re.compile(r"task-(\d+)(?:\.\d+)?\.parquet")


@dataclass(frozen=True)
class Names:
    """The names of tasks and labels; `none_label` is the answer to rows without any of the labels."""

    tasks: tuple[str, ...]
    labels: tuple[str, ...]
    none_label: str | None

    @classmethod
    def read(cls, folder: Path) -> Names:
        """The names of a saved sequence."""
        description = read_description(folder)
        return cls(
            tuple(task["name"] for task in description["tasks"]),
            tuple(description["label_names"]),
            description["none_label"],
        )

    @property
    def answers(self) -> tuple[str, ...]:
        """The answers that a large model may give: the label list, and none-of-these if rows may be out of scope."""
        return self.labels if self.none_label is None else (*self.labels, self.none_label)


def contents_of(rows: pa.Table) -> list[Content]:
    """The content of rows: their columns text, image and vector, as far as they exist."""
    absent = [None] * len(rows)
    texts, images = (rows[name].to_pylist() if name in rows.column_names else absent for name in ("text", "image"))
    vectors = matrix(rows[VECTOR]) if VECTOR in rows.column_names else absent
    return [
        Content(text or "", image or b"", vector=vector)
        for text, image, vector in zip(texts, images, vectors, strict=True)
    ]


def unit_names(rows: pa.Table, alone: Sequence[str] | None = None) -> list[str]:
    """The unit of every row: its group. A row without a group has a unit named by `alone`, by default by its id."""
    groups = rows["group"].to_pylist() if "group" in rows.column_names else [None] * len(rows)
    return [group or own for group, own in zip(groups, alone or rows["id"].to_pylist(), strict=True)]


class ShardedArtefact(Artefact):
    """An artefact with shards. The manifest names the shards of a bucket, and readers fetch them."""

    def shards(self, number: int) -> list[Path]:
        """The paths of the shards of one task, in order; they are local only after `file`, or `fetch` of the storage.

        ArtefactError if a shard is missing.
        """
        return task_shards(self.path, number, self.manifest["files"] if self.is_remote else None)

    @property
    def all_shards(self) -> dict[str, Path]:
        """The same for the shards of all tasks, by the names of their files, task by task."""
        names = self.manifest["files"] if self.is_remote else [path.name for path in self.path.glob("task-*.parquet")]
        last = max((int(match[1]) for name in names if (match := _SHARD.fullmatch(name))), default=0)
        return {path.name: path for number in range(last + 1) for path in task_shards(self.path, number, names)}

    def has_at_most(self, num_rows: int) -> bool:
        """Whether all shards together have at most so many rows; the footers of some shards tell."""
        for name in self.all_shards:
            num_rows -= pq.read_metadata(self.readable(name)).num_rows
            if num_rows < 0:
                return False
        return True

    def fetched(self, number: int) -> list[Path]:
        """The shards of one task, fetched."""
        return [self.file(path.name) for path in self.shards(number)]

    def task(self, number: int, *, split: str | None = None) -> pa.Table:
        """The rows of one task, or of one of its splits; only shards with these rows are fetched."""
        if split is None:
            return pa.concat_tables([read_table(path) for path in self.fetched(number)])
        where = pc.field("split") == split
        names = [path.name for path in self.shards(number)]
        return pa.concat_tables([read_table(self.readable(name), where=where) for name in names])


class SequenceArtefact(ShardedArtefact):
    """The rows by task and split."""

    kind = "sequence"

    @cached_property
    def names(self) -> Names:
        """The names of tasks and labels."""
        return Names.read(self._described)

    @property
    def summary(self) -> Summary:
        """Counts of the rows, as `tasks` wrote them; other stages do not."""
        return read_summary(self._described)

    def task(self, number: int, *, split: str | None = None) -> pa.Table:
        """The rows of one task, or of one of its splits, in memory, with the columns of `Task.rows`."""
        rows = pa.concat_tables([read_shard(path) for path in self.fetched(number)])
        return rows if split is None else rows.filter(pc.equal(rows["split"], split))

    @property
    def ledger_units(self) -> dict[str, Hashes]:
        """How the ledger identifies the whole table, all splits and capped rows included: by contents and groups.

        Ids do not count, because they begin with a file's name. Contents count in addition to groups, so naming a group
        column later makes no new table.
        """
        with pq.ParquetFile(self.file(UNITS)) as file:
            return {kind: unit_hashes(_digests(file, kind)) for kind in (CONTENT, GROUP)}

    def as_earlier(self) -> EarlierTasks:
        """What the rows of further tasks must know. Texts of traffic are read, since the units file lacks them."""
        return EarlierTasks(
            description=read_description(self._described),
            ids=(read_table(self.readable(name), columns=["id"]) for name in self.all_shards),
            units=chain(self._table_units(), self._traffic_units()),
            identity=self.fingerprint,
        )

    def _table_units(self) -> Iterator[pa.Table]:
        with pq.ParquetFile(self.file(UNITS)) as file:
            yield from (pa.table(batch) for batch in file.iter_batches())

    def _traffic_units(self) -> Iterator[pa.Table]:
        for number, task in enumerate(self.names.tasks):
            for path in self.fetched(number) if task in self.grown_tasks else ():
                digests = [unit_digest(content)[:16].hex() for content in contents_of(read_shard(path))]
                yield pa.table({"kind": [CONTENT] * len(digests), "digest": pa.array(digests, pa.string())})

    @property
    def name(self) -> str:
        """The name of its source."""
        return str(read_description(self._described)["name"])

    @property
    def grown_tasks(self) -> frozenset[str]:
        """The tasks whose rows came from the log; their groups are the log's names of units."""
        return frozenset(read_description(self._described).get("grown", []))

    @property
    def _described(self) -> Path:
        """The folder with the description; only the description is fetched."""
        return self.file(DESCRIPTION).parent


def _digests(file: pq.ParquetFile, kind: str) -> Iterator[str]:
    """The digests of one kind, a few thousand in memory at a time."""
    for batch in file.iter_batches():
        yield from batch["digest"].filter(pc.equal(batch["kind"], kind)).to_pylist()
