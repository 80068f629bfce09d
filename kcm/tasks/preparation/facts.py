"""Facts of rows without their payload: whether a row can be used, and its split and task. N rows.

A shard of a source is read once, block by block. The payload of a block (text, picture, vector) waits in a file until
the places of its rows are known, see `kcm.tasks.preparation.payload`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kcm.inputs.content import PARTS, TEXT, Part
from kcm.inputs.pictures import picture_fault
from kcm.tasks.rows import SPLIT_NAMES, split_name
from kcm.tasks.shards import SHARD_ROWS, SequenceFolder
from kcm.tasks.sources import Shard
from kcm.tasks.splits import NOT_GIVEN, SPLITS, draws
from kcm.tasks.units import content_names, group_names, text_keys

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class RowRules:
    """The conditions for a usable row, and the `salt` of the splits.

    If `known_labels` is empty, every label is known. `reads` are the parts of a row that a model will read: each must
    be present, and no other part is kept. `unlabelled` allows train rows without a label.
    """

    known_labels: tuple[str, ...] = ()
    reads: frozenset[Part] = TEXT
    unlabelled: bool = False
    salt: int = 0

    @property
    def parts(self) -> list[Part]:
        """The columns of the parts that are read."""
        return [part for part in PARTS if part in self.reads]


def faults(table: pa.Table, text_keys: pa.Array, rules: RowRules) -> dict[int, str]:
    """Why rows cannot be used, by position, such as a missing value, an empty text or an unknown label.

    `text_keys` are the keys of the texts, empty for texts of white space.
    """
    reasons: dict[int, str] = {}

    def mark(faulty_N: Mask, reason: str | Callable[[int], str]) -> None:
        """Give this reason to rows that have none yet."""
        for row in np.flatnonzero(faulty_N).tolist():
            if row not in reasons:
                reasons[row] = reason(row) if callable(reason) else reason

    origin_N, is_known_split_N = origins(table["split"])
    may_train_N = np.isin(origin_N, (NOT_GIVEN, SPLITS.index("train"))) & is_known_split_N
    needs_label_N = ~may_train_N if rules.unlabelled else np.ones(len(table), dtype=bool)
    for name in ("id", "label", "group", "task", "split", *rules.parts):
        missing_N = _mask(pc.is_null(table[name])) if name in table.column_names else np.ones(len(table), dtype=bool)
        mark(missing_N & needs_label_N if name == "label" else missing_N, f"missing {name}")
    mark(_mask(pc.equal(table["id"], "")), "missing id")
    mark(_mask(pc.not_equal(table["fault"], "")), lambda row: str(table["fault"][row]))
    if "text" in rules.reads:
        mark(_mask(pc.equal(text_keys, "")), "empty text")
    if "image" in rules.reads:
        mark(_mask(pc.equal(pc.binary_length(table["image"]), 0)), "empty image")
    if "vector" in rules.reads and "vector" in table.column_names:
        mark(_has_odd_number(table["vector"]), "the vector holds a number that is not finite")
    mark(_mask(pc.equal(table["label"], "")) & needs_label_N, "missing label")
    if rules.known_labels:
        known_labels = pa.array([*rules.known_labels, ""], pa.string())
        unknown_N = ~_mask(pc.is_in(table["label"], known_labels)) & _mask(table["label"].is_valid())
        mark(unknown_N, lambda row: f"label {str(table['label'][row])!r} is not in the label list")
    names = ", ".join(SPLIT_NAMES)
    mark(~is_known_split_N, lambda row: f"unknown split {str(table['split'][row])!r}, known are {names}")
    if "image" in rules.reads:
        _mark_pictures(table["image"], reasons)
    return reasons


def origins(splits: pa.ChunkedArray) -> tuple[NDArray[np.int8], Mask]:
    """The given split of every row as an index into SPLITS, or NOT_GIVEN; and whether the split's name is known."""
    coded = pc.dictionary_encode(pc.fill_null(splits, "")).combine_chunks()
    names = [split_name(name) if name else "" for name in coded.dictionary.to_pylist()]
    places = np.array([SPLITS.index(name) if name else NOT_GIVEN for name in names], dtype=np.int8)
    is_known = np.array([name is not None for name in names], dtype=bool)
    code_N = coded.indices.to_numpy()
    return places[code_N], is_known[code_N]


def _mark_pictures(images: pa.ChunkedArray, reasons: dict[int, str]) -> None:
    """Set the reason of rows whose picture cannot be decoded."""
    rows = [row for row in range(len(images)) if row not in reasons]
    with ThreadPoolExecutor() as threads:  # decoders release the interpreter's lock
        for row, fault in zip(rows, threads.map(lambda row: picture_fault(images[row].as_py()), rows), strict=True):
            if fault:
                reasons[row] = fault


def _has_odd_number(vectors: pa.ChunkedArray) -> Mask:
    column = vectors.combine_chunks()
    finite = np.isfinite(pc.fill_null(column, [0.0] * column.type.list_size).flatten().to_numpy())
    return np.asarray(~finite.reshape(len(column), -1).all(axis=1))


def _mask(values: pa.ChunkedArray | pa.Array) -> Mask:
    """Booleans, null as False, [N]."""
    return np.asarray(pc.fill_null(values, False), dtype=bool)


BLOCK_BYTES = 64 << 20  # bytes of a block, so that pictures fit in memory too
_BATCHES = 64  # parts of a block that can be read separately
_PLACE_BITS = 40  # of a place, the bits for the position in a shard of the source
FACTS = pa.schema(
    [
        ("place", pa.int64()),  # position of the row in the source, see `place_of`
        ("id", pa.string()),
        ("fault", pa.string()),  # why the row cannot be used, or null; if it cannot, the columns below are null
        ("block", pa.int64()),  # place of the first row of its block
        ("row", pa.int32()),  # index of the row in the block's file
        ("label", pa.string()),  # "" for none
        ("task", pa.string()),  # value in the task column
        ("origin", pa.int8()),  # given split as an index into SPLITS, or NOT_GIVEN
        ("content", pa.string()),  # digest of the parts that are read
        ("unit", pa.string()),  # digest of its group, or else of its content
        ("draw", pa.float64()),  # number of the unit that draws its split
    ]
)


def place_of(shard: int, position: int) -> int:
    """A number that orders rows as the source does: the index of the shard, then the position in it."""
    return (shard << _PLACE_BITS) + position


def shard_and_position(place: int) -> tuple[int, int]:
    """The inverse of `place_of`."""
    return place >> _PLACE_BITS, place & ((1 << _PLACE_BITS) - 1)


def block_file(kind: str, block: int) -> str:
    """The name of the file with the facts or the payload of the block whose first row has this place."""
    return f"{kind}-{block:016x}.arrow"


def write_facts(job: tuple[int, Shard], rules: RowRules, folder: SequenceFolder) -> dict[int, int]:
    """Write facts and payload of a shard; returns the rows of each block, by the place of the first of them.

    `job` is the shard with its number.
    """
    number, shard = job
    sizes: dict[int, int] = {}
    for rows in blocks(shard.read()):
        place = place_of(number, sum(sizes.values()))
        sizes[place] = len(rows)
        facts = facts_of(rows, rules, place)
        payload = rows.select([name for name in ("id", "group", *rules.parts) if name in rows.column_names])
        used = pc.subtract(facts["place"].filter(facts["fault"].is_null()), place)
        step = max(1, -(-len(used) // _BATCHES))
        parts = (payload.take(used.slice(at, step)) for at in range(0, max(len(used), 1), step))
        folder.write(block_file("rows", place), parts)
        # Facts go through the driver's node: digests and numbers take less than half. Numbers of a payload do not.
        folder.write(block_file("facts", place), [facts], "zstd")
    return sizes


def blocks(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The rows in blocks of `BLOCK_BYTES` or one table, with at most as many rows as a shard of a task."""
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


def facts_of(rows: pa.Table, rules: RowRules, place: int = 0) -> pa.Table:
    """The facts of a block of rows; `place` is that of the first row.

    Usable rows come first, in the order of the payload's file: by task, label and split, so that the rows of one split
    of one task lie close together.
    """
    reads_text = "text" in rules.reads
    keys = text_keys(rows["text"].combine_chunks()) if reads_text else pa.array([""] * len(rows), pa.string())
    reasons = faults(rows, keys, rules)
    fault = pa.array([reasons.get(row) for row in range(len(rows))], pa.string())
    facts = pa.table({"place": place + np.arange(len(rows)), "id": rows["id"], "fault": fault})
    is_usable = fault.is_null()
    usable, faulty = facts.filter(is_usable), facts.filter(pc.invert(is_usable))
    columns = dict(zip(usable.column_names, usable.columns, strict=True))
    usable = pa.table(columns | _facts_of_usable(rows.filter(is_usable), keys.filter(is_usable), rules))
    usable = usable.take(_order(usable)).append_column("block", pa.repeat(place, len(usable)))
    usable = usable.append_column("row", pa.array(np.arange(len(usable))))
    return pa.concat_tables([usable, faulty], promote_options="default").select(FACTS.names).cast(FACTS)


def _facts_of_usable(rows: pa.Table, keys: pa.Array, rules: RowRules) -> dict[str, pa.Array | pa.ChunkedArray]:
    contents = content_names(pa.table({"text": keys} | {part: rows[part] for part in rules.parts if part != "text"}))
    groups = group_names(rows["group"].combine_chunks())
    units = [group or content for group, content in zip(groups, contents, strict=True)]
    return {
        "label": pc.fill_null(rows["label"], ""),
        "task": rows["task"],
        "origin": pa.array(origins(rows["split"])[0]),
        "content": pa.array(contents, pa.string()),
        "unit": pa.array(units, pa.string()),
        "draw": pa.array(draws(rules.salt, "purpose", units)),
    }


def _order(facts: pa.Table) -> pa.Array:
    """The positions of rows by task, label, given split and draw, which decides a split that is not given."""
    codes = [facts[name].combine_chunks().dictionary_encode().indices.to_numpy() for name in ("label", "task")]
    return pa.array(np.lexsort([facts["draw"].to_numpy(), facts["origin"].to_numpy(), *codes]))
