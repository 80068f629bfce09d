"""Rows as sources give them, normalised, and the usable rows among them."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kcm.errors import DataError
from kcm.inputs.content import TEXT, Part
from kcm.inputs.pictures import picture_fault

_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validate",
    "valid": "validate",
    "validation": "validate",
    "validate": "validate",
    "dev": "validate",
    "certify": "certify",
    "test": "test",
}


def row_schema(dim: int | None = None) -> pa.Schema:
    """The columns of normalised rows; `vector` is among them where rows have one, of `dim` numbers.

    Null is a missing value, which is a fault where a model or the sequence needs it; "" says that there is none, as
    where no column is named. `image` holds a picture in the bytes of its file. `fault` says what the source found
    wrong, "" for nothing.
    """
    text = [pa.field(name, pa.string()) for name in ("id", "text")]
    rest = [pa.field(name, pa.string()) for name in ("label", "group", "task", "split", "fault")]
    vector = [] if dim is None else [pa.field("vector", pa.list_(pa.float32(), dim))]
    return pa.schema([*text, pa.field("image", pa.large_binary()), *rest, *vector])


def fault_column(faults: Mapping[int, str], num_rows: int) -> pa.Array:
    """The column `fault` of rows with these faults, by position."""
    column = pa.repeat(pa.scalar("", pa.string()), num_rows)
    return pa.array([faults.get(row, "") for row in range(num_rows)], pa.string()) if faults else column


def split_name(written: str) -> str | None:
    """The split for the name `written`, such as validate for dev; None for an unknown name."""
    return _SPLIT_NAMES.get(written.strip().lower())


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a source.

    None is a missing value; an empty `text`, `group`, `task`, `split` or `image` stands for no such column. `image` is
    a picture in the bytes of its file, `vector` float32 [D]; `fault` is what the source itself found wrong.
    """

    id: str | None
    text: str | None
    label: str | None
    group: str | None = ""
    task: str | None = ""
    split: str | None = ""
    image: bytes | None = field(default=b"", repr=False)
    fault: str = ""
    vector: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)


def rows_of(records: Sequence[Record]) -> pa.Table:
    """Records as normalised rows."""
    dim = next((len(record.vector) for record in records if record.vector is not None), None)
    schema = row_schema(dim)
    return pa.table(
        [pa.array([getattr(record, field.name) for record in records], field.type) for field in schema], schema=schema
    )


def records_of(table: pa.Table) -> Iterator[Record]:
    """Normalised rows one by one."""
    names = row_schema().names
    vectors: list[NDArray[np.float32] | None] = [None] * len(table)
    if "vector" in table.schema.names:
        vectors = [None if cell is None else np.array(cell, np.float32) for cell in table["vector"].to_pylist()]
    for vector, *values in zip(vectors, *(table[name].to_pylist() for name in names), strict=True):
        yield Record(**dict(zip(names, values, strict=True)), vector=vector)


@dataclass(frozen=True, slots=True)
class Row:
    """One usable row; `group`, `task` and `split` are empty where there is none.

    `label` is empty for a row that is out of scope, never a train row, and for a train row without a label. Of `text`,
    `image` (bytes) and `vector` (float32 [D]), the parts that no model reads are empty.
    """

    id: str
    text: str
    label: str
    group: str
    task: str
    split: str
    image: bytes = field(default=b"", repr=False)
    vector: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that was left out, and why."""

    id: str
    reason: str


def clean(
    records: Iterable[Record], known_labels: Sequence[str], reads: Collection[Part] = TEXT, *, unlabelled: bool = False
) -> tuple[list[Row], list[BadRow]]:
    """Separate usable rows from bad ones: missing value, empty text, bad image, unknown label or split, duplicate id.

    `known_labels` empty means that every label is known. `reads` are the parts of a row that a model will read: each
    must be there, and no other is kept. `unlabelled` allows train rows without a label. A bad row without an id is
    called by its number, from 1.
    """
    known, seen = frozenset(known_labels), set[str]()
    rows: list[Row] = []
    bad: list[BadRow] = []
    for number, record in enumerate(records, start=1):
        fault = _fault(record, known, reads, unlabelled)
        if not fault and record.id in seen:
            fault = "duplicate id"
        if fault:
            bad.append(BadRow(record.id or f"row {number}", fault))
            continue
        seen.add(str(record.id))
        rows.append(_row(record, reads))
    return _with_pictures(rows, bad)


def _with_pictures(rows: list[Row], bad: list[BadRow]) -> tuple[list[Row], list[BadRow]]:
    """Move rows with an unusable picture to the bad ones."""
    if not any(row.image for row in rows):
        return rows, bad
    with ThreadPoolExecutor() as threads:  # decoders work outside the interpreter's lock
        faults = list(threads.map(lambda row: picture_fault(row.image) if row.image else None, rows))
    unusable = [BadRow(row.id, fault) for row, fault in zip(rows, faults, strict=True) if fault]
    return [row for row, fault in zip(rows, faults, strict=True) if not fault], [*bad, *unusable]


def _fault(record: Record, known: frozenset[str], reads: Collection[Part], unlabelled: bool) -> str:
    needs_label = not unlabelled or split_name(record.split or "train") != "train"
    for name in ("id", "label", "group", "task", "split", *reads):
        if getattr(record, name) is None and (needs_label or name != "label"):
            return f"missing {name}"
    if not record.id:
        return "missing id"
    if record.fault:
        return record.fault
    if "text" in reads and not str(record.text).strip():
        return "empty text"
    if "image" in reads and not record.image:
        return "empty image"
    if "vector" in reads and not np.isfinite(record.vector).all():  # type: ignore[arg-type]  # it is not missing
        return "the vector holds a number that is not finite"
    if not record.label and needs_label:
        return "missing label"
    if record.label and known and record.label not in known:
        nearest = difflib.get_close_matches(record.label, known, n=1)
        hint = f", did you mean {nearest[0]!r}?" if nearest else ""
        return f"label {record.label!r} is not in the label list{hint}"
    if record.split and record.split.strip().lower() not in _SPLIT_NAMES:
        return f"unknown split {record.split!r}, known are {', '.join(_SPLIT_NAMES)}"
    return ""


def _row(record: Record, reads: Collection[Part]) -> Row:
    split = _SPLIT_NAMES[record.split.strip().lower()] if record.split else ""
    text = str(record.text) if "text" in reads else ""
    image = record.image or b"" if "image" in reads else b""
    vector = record.vector if "vector" in reads else None
    return Row(str(record.id), text, record.label or "", record.group or "", record.task or "", split, image, vector)


def write_bad_rows(bad_rows: Sequence[BadRow], path: Path) -> None:
    """List bad rows in a CSV file with the columns id and reason."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "reason"])
        writer.writerows([row.id, row.reason] for row in bad_rows)


def read_bad_rows(path: Path) -> tuple[BadRow, ...]:
    """The rows that `write_bad_rows` listed."""
    with path.open(encoding="utf-8", newline="") as stream:
        return tuple(BadRow(row["id"], row["reason"]) for row in csv.DictReader(stream))


def check_bad_rows(bad_rows: Sequence[BadRow], num_rows: int, limit: int | str, where: str) -> None:
    """Raise DataError when there are more bad rows than `limit`: a count, or a share of all rows such as "1%"."""
    allowed = limit if isinstance(limit, int) else int(float(limit.rstrip("%")) / 100 * num_rows)
    if len(bad_rows) <= allowed:
        return
    shown = "; ".join(f"{row.id}: {row.reason}" for row in bad_rows[:3]) + ("; …" if len(bad_rows) > 3 else "")
    raise DataError(
        f"{len(bad_rows)} of {num_rows} rows are bad, more than max_bad_rows = {limit} allows: {shown}",
        where=where,
        mend="Mend the rows, or raise max_bad_rows",
    )
