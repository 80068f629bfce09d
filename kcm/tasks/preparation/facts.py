"""Facts of rows without their payload: whether a row can be used, and its split and task. N rows.

A shard of a source is read once; its payload waits in one file per block of rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kcm.tasks.hashing import draws
from kcm.tasks.preparation.cleaning import RowRules, faults, origins
from kcm.tasks.shards import SHARD_ROWS, SequenceFolder
from kcm.tasks.sources import Shard
from kcm.tasks.units import content_names, group_names, text_keys

BLOCK_BYTES = 64 << 20  # bytes of a block, so that pictures fit in memory too
FACTS = pa.schema(
    [
        ("shard", pa.int32()),  # index of the shard in the source
        ("position", pa.int64()),  # index of the row in the shard
        ("id", pa.string()),
        ("fault", pa.string()),  # why the row cannot be used, or null; if it cannot, the columns below are null
        ("label", pa.string()),  # "" for none
        ("task", pa.string()),  # value in the task column
        ("origin", pa.int8()),  # given split as an index into SPLITS, or NOT_GIVEN
        ("content", pa.string()),  # digest of the parts that are read
        ("unit", pa.string()),  # digest of its group, or else of its content
        ("draw", pa.float64()),  # number of the unit that draws its split
    ]
)


@dataclass(frozen=True)
class SourceBlock:
    """Rows of shard `shard` of the source, starting at position `start`."""

    shard: int
    start: int
    num_rows: int

    def file(self, kind: str) -> str:
        """The name of a file about these rows; of one kind they sort in the order of the source."""
        return f"{kind}-{self.shard:05d}-{self.start:012d}.arrow"


def write_facts(job: tuple[int, Shard], rules: RowRules, folder: SequenceFolder) -> list[SourceBlock]:
    """Write facts and payload of a shard; returns its blocks. `job` is the shard with its number."""
    number, shard = job
    source_blocks: list[SourceBlock] = []
    start = 0
    for rows in blocks(shard.read()):
        source_blocks.append(block := SourceBlock(number, start, len(rows)))
        start += len(rows)
        payload = [name for name in ("id", "group", *rules.parts) if name in rows.column_names]
        folder.write(block.file("rows"), rows.select(payload))
        # Facts go through the driver's node: digests and numbers take less than half. Numbers of a payload do not.
        folder.write(block.file("facts"), facts_of(rows, rules, number, block.start), "zstd")
    return source_blocks


def blocks(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The rows of a shard in blocks of a few megabytes, with at most as many rows as a shard of a task."""
    waiting: list[pa.Table] = []
    num_rows = num_bytes = 0
    for table in tables:
        for start in range(0, len(table), SHARD_ROWS):
            part = table.slice(start, SHARD_ROWS)
            if waiting and (num_rows + len(part) > SHARD_ROWS or num_bytes + part.nbytes > BLOCK_BYTES):
                yield pa.concat_tables(waiting).combine_chunks()
                waiting, num_rows, num_bytes = [], 0, 0
            waiting.append(part)
            num_rows, num_bytes = num_rows + len(part), num_bytes + part.nbytes
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def facts_of(rows: pa.Table, rules: RowRules, shard: int = 0, start: int = 0) -> pa.Table:
    """The facts of rows, usable rows first; `start` is the position of the first row in its shard."""
    reads_text = "text" in rules.reads
    keys = text_keys(_plain(rows["text"])) if reads_text else pa.array([""] * len(rows), pa.string())
    reasons = faults(rows, keys, rules)
    fault = pa.array([reasons.get(row) for row in range(len(rows))], pa.string())
    columns = {"shard": np.full(len(rows), shard), "position": start + np.arange(len(rows)), "id": rows["id"]}
    facts, is_usable = pa.table(columns | {"fault": fault}), fault.is_null()
    usable, faulty = facts.filter(is_usable), facts.filter(pc.invert(is_usable))
    for name, column in _facts_of_usable(rows.filter(is_usable), keys.filter(is_usable), rules).items():
        usable = usable.append_column(name, column)
    return pa.concat_tables([usable, faulty], promote_options="default").cast(FACTS)


def _facts_of_usable(rows: pa.Table, keys: pa.Array, rules: RowRules) -> dict[str, pa.Array | pa.ChunkedArray]:
    contents = content_names(pa.table({"text": keys} | {part: rows[part] for part in rules.parts if part != "text"}))
    groups = group_names(_plain(rows["group"]))
    units = [group or content for group, content in zip(groups, contents, strict=True)]
    return {
        "label": pc.fill_null(rows["label"], ""),
        "task": rows["task"],
        "origin": pa.array(origins(rows["split"])[0]),
        "content": pa.array(contents, pa.string()),
        "unit": pa.array(units, pa.string()),
        "draw": pa.array(draws(rules.salt, "purpose", units)),
    }


def _plain(column: pa.ChunkedArray) -> pa.Array:
    """A column as one contiguous array."""
    return column.combine_chunks()
