"""Recorded answers to the rows of a sequence: both are dealt out by a hash of the id and joined part by part.

Neither all answers nor all rows are ever in one memory. A part holds about a million rows:

    answers/0007.parquet   the answers whose ids have this hash
    places/0007.parquet    shard and position of the rows whose ids have it
    joined/0007.parquet    the answers with shard and position, in that order

The answers of a shard are its share of every joined part.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from kcm.large import LargeConfig
from kcm.large.adapters.recorded import matrix_of, repeated, unanswered
from kcm.large.coverage import Coverage
from kcm.parquet import open_writer, read_table, write_table
from kcm.tasks.shards import GROUP_ROWS
from pipelines.batch.pieces import Took, sizes_of
from pipelines.batch.pool import Made, in_order, map_shards, run_remotely
from pipelines.cluster.config import ClusterConfig
from pipelines.progress import Bar
from pipelines.store.outcomes import Answers, over_labels
from pipelines.store.storage import Storage

ROWS_PER_PART = 1_000_000  # that are joined in one memory
_SHARD, _ROW = "shard", "row"


class LookUp:
    """Gives rows their recorded answers, from the joined parts."""

    unfinished: ClassVar[str | None] = None

    def __init__(self, parts: Sequence[Path], shards: Mapping[Path, int], num_labels: int, storage: Storage) -> None:
        self._parts, self._shards, self._num_labels = parts, shards, num_labels
        self._storage = storage
        self._source: Path | None = None

    def __call__(self, rows: pa.Table, source: Path) -> tuple[pa.Table, Took]:
        """The answers; a shard's are read once."""
        if source != self._source:
            self._source = source
            mine = [
                read_table(self._storage.fetch(part), where=pc.field(_SHARD) == self._shards[source])
                for part in self._parts
            ]
            self._answers = pa.concat_tables(mine).sort_by(_ROW)
        found = self._answers.take(pc.index_in(rows["id"], value_set=self._answers["id"].combine_chunks()))
        answers = Answers(
            label_N=found["label"].to_numpy(),
            probabilities_NC=over_labels(matrix_of(found), found["label"].to_numpy(), self._num_labels),
            cost_N=found["seconds"].to_numpy(),
            failed_N=found["label"].to_numpy() < 0,
        )
        took = {name: pc.sum(found[name]).as_py() or 0 for name in ("tokens", "currency")}
        return answers.table(rows), {"rows": len(rows)} | took


def look_up(
    large: LargeConfig,
    answer_names: Sequence[str],
    sources: Mapping[str, Path],
    *,
    num_labels: int,
    cluster: ClusterConfig,
    scratch: Path,
    storage: Storage,
    bar: Bar,
) -> tuple[dict[str, Made], Took]:
    """A file with the recorded answers to the rows of every shard: the files by name, and what all took.

    Raises DataError for a row without an answer, two answers for one row, and a table that cannot be right.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    sizes = sizes_of(sources, storage).values()
    num_parts = max(1, -(-sum(sizes) // ROWS_PER_PART))
    answers, places, joined = (scratch / name for name in ("answers", "places", "joined"))
    shards = {source: number for number, source in enumerate(sources.values())}
    dealing: list[tuple[Iterable[pa.Table], Path, int]] = [
        (_Recorded(large, tuple(answer_names)), answers, num_parts),
        (_Places(tuple(shards), storage), places, num_parts),
    ]
    joined.mkdir(exist_ok=True)
    parts = [joined / _part(number) for number in range(num_parts)]
    there = set(storage.names(joined))  # from an attempt that was interrupted
    if missing := [part for part in parts if part.name not in there]:
        run_remotely(_deal, *dealing)
        run_remotely(
            _join, *((answers / part.name, places / part.name, part, large.location, storage) for part in missing)
        )
    return map_shards(
        sources,
        LookUp,
        {"parts": parts, "shards": shards, "num_labels": num_labels, "storage": storage},
        rows_per_piece=max(sizes),
        cluster=cluster,
        scratch=scratch,
        storage=storage,
        bar=bar,
    )


def coverage(large: LargeConfig, answer_names: Sequence[str], sources: Sequence[Path], storage: Storage) -> Coverage:
    """Which rows of some shards have no recorded answer. Raises DataError for a table that cannot be right."""
    answered = (table["id"] for table in large.answer_tables(tuple(answer_names)))
    return Coverage.of(answered, lambda: (ids["id"] for ids in _ids(sources, storage)))


def _ids(sources: Sequence[Path], storage: Storage) -> Iterator[pa.Table]:
    """The ids of every shard, read on any node: each fetches some shards, and no node all of them."""
    return in_order(_ids_of, [(source, storage) for source in sources])


def _ids_of(source: Path, storage: Storage) -> pa.Table:
    return read_table(storage.fetch(source), columns=["id"])


class _Recorded:
    """The recorded answers, as tables."""

    def __init__(self, large: LargeConfig, label_names: tuple[str, ...]) -> None:
        self._large, self._label_names = large, label_names

    def __iter__(self) -> Iterator[pa.Table]:
        return self._large.answer_tables(self._label_names)


class _Places:
    """Id, shard and position of every row, as tables."""

    def __init__(self, sources: tuple[Path, ...], storage: Storage) -> None:
        self._sources, self._storage = sources, storage

    def __iter__(self) -> Iterator[pa.Table]:
        for number, ids in enumerate(_ids(self._sources, self._storage)):
            yield ids.append_column(_SHARD, pa.array(np.full(len(ids), number, dtype=np.int32))).append_column(
                _ROW, pa.array(np.arange(len(ids), dtype=np.int64))
            )


def _deal(tables: Iterable[pa.Table], folder: Path, num_parts: int) -> None:
    """Write the rows of `tables` to a file for each part, by a hash of their ids; a folder that is there is whole."""
    if folder.exists():
        return
    draft = folder.with_name(f".{folder.name}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    with ExitStack() as stack:
        writers: list[Any] = []
        for table in tables:
            if not writers:
                writers = [
                    stack.enter_context(open_writer(draft / _part(number), table.schema)) for number in range(num_parts)
                ]
            part_N = pd.util.hash_array(table["id"].to_numpy(), categorize=False) % np.uint64(num_parts)
            for number, writer in enumerate(writers):
                writer.write_table(table.filter(pa.array(part_N == number)))
    draft.rename(folder)


def _join(answers: Path, places: Path, target: Path, where: str, storage: Storage) -> None:
    """Give the rows of a part their answers, in the order of shards and positions."""
    answered, rows = read_table(answers), read_table(places).sort_by([(_SHARD, "ascending"), (_ROW, "ascending")])
    counts = pc.value_counts(answered["id"].combine_chunks())
    twice = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        raise repeated(twice[0].as_py(), where)
    found = pc.index_in(rows["id"], value_set=answered["id"].combine_chunks())
    if found.null_count:
        missing = rows["id"].filter(found.is_null())
        raise unanswered(len(missing), missing[0].as_py(), where)
    joined = answered.take(found).append_column(_SHARD, rows[_SHARD]).append_column(_ROW, rows[_ROW])
    draft = target.with_name(f".{target.name}")
    write_table(joined, draft, row_group_size=GROUP_ROWS)
    draft.replace(target)
    storage.keep(target)


def _part(number: int) -> str:
    return f"{number:04d}.parquet"
