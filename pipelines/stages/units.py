"""Units of rows by their names in the log, and their splits."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from kcm.inputs.content import Content
from kcm.tasks.sequence import read_shard
from kcm.tasks.splits import SPLITS, Split
from kcm.tasks.units import unit_digest, unit_of
from pipelines.batch.mapping import map_items
from pipelines.store.sequence import SequenceArtefact, contents_of


def units_of(sequence: SequenceArtefact, key: bytes) -> dict[str, Split]:
    """The split of every unit of a sequence's rows, by its name in the log with this key.

    If a unit has several splits, train wins.
    """
    split_by_unit: dict[str, Split] = {}
    for _, unit, split in _units(sequence, key):
        if split_by_unit.get(unit) != "train":
            split_by_unit[unit] = split
    return split_by_unit


def rows_of(sequence: SequenceArtefact, key: bytes, units: Collection[str]) -> list[str]:
    """The ids of a sequence's rows that belong to these units."""
    return list(dict.fromkeys(row_id for row_id, unit, _ in _units(sequence, key) if unit in units))


def _units(sequence: SequenceArtefact, key: bytes) -> Iterator[tuple[str, str, Split]]:
    """Row, name of its unit in the log, and split."""
    grown = sequence.grown_tasks
    shards = [
        (path.name, task in grown)
        for number, task in enumerate(sequence.names.tasks)
        for path in sequence.shards(number)
    ]
    for digests in map_items(partial(_digests_of, sequence), shards):
        for row_id, unit, split in digests:
            yield row_id, unit if isinstance(unit, str) else unit_of(unit, key), split


def _digests_of(sequence: SequenceArtefact, shard: tuple[str, bool]) -> list[tuple[str, str | bytes, Split]]:
    """Row, unit and split of a shard; the unit by name if the row came from the log, otherwise by digest.

    A row that did not come from the log has two units: a decision carries its group or its content. Rows are read some
    at a time: they hold pictures.
    """
    name, is_grown = shard
    digests: list[tuple[str, str | bytes, Split]] = []
    for batch in read_shard(sequence.file(name)).to_batches(max_chunksize=1024):
        rows = pa.table(batch.filter(pc.field("split").isin(SPLITS)))
        for row, content in zip(rows.select(["id", "group", "split"]).to_pylist(), contents_of(rows), strict=True):
            if is_grown:
                digests.append((row["id"], row["group"], row["split"]))
                continue
            digests.append((row["id"], unit_digest(content), row["split"]))
            if row["group"]:
                digests.append((row["id"], unit_digest(Content(), row["group"]), row["split"]))
    return digests
