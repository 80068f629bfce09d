"""Facts of rows: what decides the split and the task of a row, without its text, picture or vector. N rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kcm.tasks.hashing import draws
from kcm.tasks.preparation.cleaning import CleaningRules, faults, origins
from kcm.tasks.preparation.folder import SequenceFolder
from kcm.tasks.shards import SHARD_ROWS
from kcm.tasks.sources import Shard
from kcm.tasks.units import content_names, group_names, text_keys

BLOCK_BYTES = 64 << 20  # of a block of rows, so that pictures fit in memory as well
FACTS = pa.schema(
    [
        ("shard", pa.int32()),  # place among the shards of the source
        ("block", pa.int32()),  # place among the blocks of the shard, see `blocks`
        ("position", pa.int64()),  # place among the rows of the shard
        ("id", pa.string()),
        ("fault", pa.string()),  # why the row cannot be used; null where it can, and what follows is null otherwise
        ("label", pa.string()),  # "" for none
        ("task", pa.string()),  # value of the task column
        ("origin", pa.int8()),  # given split as a place in SPLITS, or NOT_GIVEN
        ("content", pa.binary(16)),  # digest of what is read of the row
        ("unit", pa.binary(16)),  # digest of its group, else of its content
        ("draw", pa.float64()),  # of the unit, for its split
        ("cap_rank", pa.float64()),  # of the unit: a cap keeps the lowest ones; null without a cap
        ("tail_rank", pa.float64()),  # of the row: a long tail keeps the lowest ones; null without a long tail
        ("task_draw", pa.float64()),  # of a row without a label of the list, for its task; else null
    ]
)


@dataclass(frozen=True)
class FactRules:
    """What makes a row usable, and what its draws are seeded by.

    `outside` is the label of rows that are out of scope, where they are kept. `caps` and `tails` say whether the ranks
    are needed.
    """

    cleaning: CleaningRules
    salt: int
    seed: int
    outside: str | None = None
    caps: bool = False
    tails: bool = False


def write_facts(job: tuple[int, Shard], rules: FactRules, folder: SequenceFolder) -> str:
    """Write the facts of a shard, block by block; the name of the file. `job` is its number, and the shard."""
    number, shard = job

    def tables() -> Iterator[pa.Table]:
        start = 0
        for block, rows in enumerate(blocks(shard.read())):
            yield facts_of(rows, rules, number, block, start)
            start += len(rows)

    folder.write_batches(name := f"facts-{number:05d}.arrow", FACTS, tables())
    return name


def blocks(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The rows of a shard in blocks of as many rows as a shard of a task has, or of some megabytes.

    They depend on the rows alone, so that reading again gives the same blocks.
    """
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


def facts_of(rows: pa.Table, rules: FactRules, shard: int = 0, block: int = 0, start: int = 0) -> pa.Table:
    """The facts of rows in one piece, the usable ones first; `start` is the position of the first in its shard."""
    reads_text = "text" in rules.cleaning.reads
    keys = text_keys(_plain(rows["text"])) if reads_text else pa.array([""] * len(rows), pa.string())
    reasons = faults(rows, keys, rules.cleaning)
    is_faulty_N = np.zeros(len(rows), dtype=bool)
    is_faulty_N[list(reasons)] = True
    faulty = {
        "position": start + np.flatnonzero(is_faulty_N),
        "id": rows["id"].filter(pa.array(is_faulty_N)),
        "fault": pa.array([reasons[position] for position in sorted(reasons)], pa.string()),
    }
    if reasons:
        is_usable = pa.array(~is_faulty_N)
        rows, keys = rows.filter(is_usable), keys.filter(is_usable)
    usable = {"position": start + np.flatnonzero(~is_faulty_N)} | _facts_of_usable(rows, keys, rules)
    return pa.concat_tables([_table(columns, shard, block) for columns in (usable, faulty)])


def _facts_of_usable(rows: pa.Table, keys: pa.Array, rules: FactRules) -> dict[str, Any]:
    parts = rules.cleaning.parts
    contents = content_names(pa.table({"text": keys} | {part: rows[part] for part in parts if part != "text"}))
    groups = group_names(_plain(rows["group"]))
    units = [group or content for group, content in zip(groups, contents, strict=True)]
    label = pc.fill_null(rows["label"], "")
    facts: dict[str, Any] = {
        "id": rows["id"],
        "label": label,
        "task": rows["task"],
        "origin": origins(rows["split"])[0],
        "content": _digests(contents),
        "unit": _digests(units),
        "draw": draws(rules.salt, "purpose", units),
    }
    if rules.caps:
        facts["cap_rank"] = draws(rules.seed, "cap", units)
    if rules.tails:
        facts["tail_rank"] = draws(rules.seed, "long tail", rows["id"].to_pylist())
    for special, purpose in (("", "unlabelled"), (rules.outside, "out of scope")):
        is_special = pc.equal(label, pa.scalar(special, pa.string()))
        if pc.any(is_special).as_py():
            task_draw = facts.get("task_draw", pa.nulls(len(rows), pa.float64()))
            drawn = draws(rules.seed, purpose, rows["id"].filter(is_special).to_pylist())
            facts["task_draw"] = pc.replace_with_mask(task_draw, _plain(is_special), pa.array(drawn))
    return facts


def _table(columns: dict[str, Any], shard: int, block: int) -> pa.Table:
    """Rows of a block as a table of `FACTS`; columns that are not given are null."""
    count = len(columns["position"])
    columns |= {"shard": np.full(count, shard, np.int32), "block": np.full(count, block, np.int32)}
    nulls = {field.name: pa.nulls(count, field.type) for field in FACTS if field.name not in columns}
    return pa.table(columns | nulls).select(FACTS.names).cast(FACTS)


def _digests(names: list[str]) -> pa.Array:
    data = pa.py_buffer(bytes.fromhex("".join(names)))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(names), [None, data])


def _plain(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column in one piece."""
    return column if isinstance(column, pa.Array) else column.combine_chunks()
