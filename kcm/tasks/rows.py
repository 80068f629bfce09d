"""The one schema of rows from all sources, and the list of rows that cannot be used."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields
from decimal import Decimal
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kcm.errors import DataError
from kcm.inputs.cell_text import guarded, unguarded

SPLIT_NAMES = {
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
    """The columns of normalised rows, with `vector` of `dim` numbers if rows have one.

    Null is a missing value: a fault if a model or the sequence needs it. "" means that the source has no such column.
    `image` holds the bytes of a picture's file. `fault` is what the source found wrong, "" for nothing.
    """
    text = [pa.field(name, pa.string()) for name in ("id", "text")]
    strings = [pa.field(name, pa.string()) for name in ("label", "group", "task", "split", "fault")]
    vector = [] if dim is None else [pa.field("vector", pa.list_(pa.float32(), dim))]
    return pa.schema([*text, pa.field("image", pa.large_binary()), *strings, *vector])


def fault_column(faults: Mapping[int, str], num_rows: int) -> pa.Array:
    """The column `fault` for these faults by position."""
    column = pa.repeat(pa.scalar("", pa.string()), num_rows)
    return pa.array([faults.get(row, "") for row in range(num_rows)], pa.string()) if faults else column


def split_name(name: str) -> str | None:
    """The split called `name`, such as validate for dev; None for an unknown name."""
    return SPLIT_NAMES.get(name.strip().lower())


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row of a source.

    None is a missing value; an empty `text`, `group`, `task`, `split` or `image` means that there is no such column.
    `image` holds the bytes of a picture's file, `vector` is float32 [D]; `fault` is what the source itself found wrong.
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


def rows_of(records: Sequence[SourceRow]) -> pa.Table:
    """Rows as a table."""
    dim = next((len(record.vector) for record in records if record.vector is not None), None)
    schema = row_schema(dim)
    return pa.table(
        [pa.array([getattr(record, field.name) for record in records], field.type) for field in schema], schema=schema
    )


def records_of(table: pa.Table) -> Iterator[SourceRow]:
    """The rows of a table one by one."""
    names = row_schema().names
    vectors: list[NDArray[np.float32] | None] = [None] * len(table)
    if "vector" in table.schema.names:
        vectors = [None if cell is None else np.array(cell, np.float32) for cell in table["vector"].to_pylist()]
    for vector, *values in zip(vectors, *(table[name].to_pylist() for name in names), strict=True):
        yield SourceRow(**dict(zip(names, values, strict=True)), vector=vector)


@dataclass(frozen=True, slots=True)
class BadRow:
    """A dropped row with the reason, its file, and its number among the rows of the file, from 1."""

    id: str
    reason: str
    file: str = ""
    row: int = 0

    def __str__(self) -> str:
        place = f"row {self.row} of {self.file}" if self.row else ""
        return f"{', '.join(filter(None, (place, self.id)))}: {self.reason}"


def write_bad_rows(bad_rows: Iterable[BadRow], path: Path) -> None:
    """Write bad rows to a CSV file with the fields of `BadRow` as columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([column.name for column in fields(BadRow)])
        writer.writerows([guarded(str(cell)) for cell in astuple(row)] for row in bad_rows)


def read_bad_rows(path: Path) -> tuple[BadRow, ...]:
    """The rows of a file by `write_bad_rows`."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream)
        texts = ({name: unguarded(cell) for name, cell in row.items()} for row in rows)
        return tuple(BadRow(row["id"], row["reason"], row["file"], int(row["row"])) for row in texts)


def check_bad_rows(bad_rows: Iterable[BadRow], num_bad: int, num_rows: int, limit: int | str, where: str) -> None:
    """Raise DataError when `num_bad` is more than `limit`: a count, or a share of all rows such as "1%".

    The message names the first of `bad_rows`.
    """
    max_bad = limit if isinstance(limit, int) else int(Decimal(limit.rstrip("%")) * num_rows / 100)
    if num_bad <= max_bad:
        return
    first = islice(bad_rows, min(num_bad, 3))
    examples = "; ".join(map(str, first)) + ("; …" if num_bad > 3 else "")
    raise DataError(
        f"{num_bad} of {num_rows} rows are bad, more than max_bad_rows = {limit} allows: {examples}",
        where=where,
        hint="Correct the rows, or raise max_bad_rows",
    )
