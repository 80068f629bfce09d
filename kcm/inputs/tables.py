"""Whole tables in memory, for sizes that a person looks at; their columns, and missing columns.

Chunks of a JSON or Excel file may differ in the type of a column, depending on the values in them.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import pandas as pd
import pyarrow as pa

from kcm.errors import DataError
from kcm.inputs.cell_text import as_text
from kcm.inputs.chunks import TEXTS, open_parquet, read_chunks, readable, sheet_names
from kcm.inputs.location import Location
from kcm.inputs.textfile import UNKNOWN_FORMAT
from kcm.inputs.vectors import matching

_SHOWN = 20  # number of columns listed in a message
_NAMED = 3  # number of rows or sheets listed in a note
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_ENCODINGS = {
    "utf-8-sig": "utf-8 with a byte-order mark, which is skipped",
    "cp1252": "cp1252 (as Latin-1; if letters look wrong, correct tasks.source.encoding)",
}


def file_notes(location: Location) -> Iterator[str]:
    """Lines on the format of a file: encoding and delimiter, and unread sheets."""
    if location.suffix in TEXTS:
        actual = UNKNOWN_FORMAT.found_in(location)
        encoding = _ENCODINGS.get(str(actual.encoding), actual.encoding)
        marks = _DELIMITERS.get(str(actual.delimiter), actual.delimiter)
        cells = f"cells separated by {marks}, " if location.suffix in (".csv", ".tsv") else ""
        yield f"{location.name}: {cells}encoding {encoding}"
    first, *other_sheets = sheet_names(location) or [""]
    if other_sheets:
        yield (
            f"warning: {location.name}: sheet {first!r} is read, {len(other_sheets)} more are ignored:"
            f" {_first_names(list(map(repr, other_sheets)))}; save a sheet as a file of its own to read it"
        )


def broken_notes(rows: Sequence[int]) -> Iterator[str]:
    """A line on the rows of a CSV file, by number, with line breaks in a cell."""
    if rows:
        yield (
            f"warning: cells of {len(rows):,} rows hold line breaks (row {_first_names(rows)}): if a quote is unclosed,"
            " the cell swallowed the rows below it"
        )


def _first_names(names: Sequence[object]) -> str:
    return ", ".join(map(str, names[:_NAMED])) + (", …" if len(names) > _NAMED else "")


def read_frame(path: str | Path, kinds: Collection[str]) -> pd.DataFrame:
    """The whole table of a file of one of `kinds`, such as .csv.

    Raises the errors of `read_chunks`, and DataError without rows or for a row with more fields than the header.
    """
    location = Location.of(path)
    with readable(location, kinds):
        tables = []
        for chunk in read_chunks(location):
            for position, fault in chunk.faults.items():
                raise ValueError(f"row {chunk.first + position}: {fault}")
            tables.append(chunk.table)
    if not any(map(len, tables)):
        raise DataError("the file holds no rows" if tables else "the file is empty", where=str(location))
    return pa.concat_tables(tables, promote_options="permissive").to_pandas()


def scanned(location: Location) -> tuple[pa.Schema, int]:
    """The columns of a file, with types that fit the values of all its rows, and the number of rows.

    For a Parquet file the footer has both. Raises the errors of `read_chunks`.
    """
    if location.suffix == ".parquet":
        with readable(location), open_parquet(location) as file:
            return file.schema_arrow, file.metadata.num_rows
    num_rows = 0
    schemas = []
    for chunk in read_chunks(location):
        num_rows += chunk.num_rows
        schemas.append(chunk.table.schema)
    return _common_schema(schemas), num_rows


def _common_schema(schemas: Iterable[pa.Schema]) -> pa.Schema:
    """The columns of chunks, with types that fit the values of all."""
    types: dict[str, pa.DataType] = {}
    for field in chain.from_iterable(schemas):
        types[field.name] = _common(types.get(field.name, field.type), field.type)
    return pa.schema([(name, pa.string() if pa.types.is_null(kind) else kind) for name, kind in types.items()])


def _common(left: pa.DataType, right: pa.DataType) -> pa.DataType:
    """The type that fits the values of both; text if there is no other."""
    if left == right or pa.types.is_null(right):
        return left
    if pa.types.is_null(left):
        return right
    return pa.float64() if {left, right} == {pa.int64(), pa.float64()} else pa.string()


def fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A chunk of a file with the columns of `scanned`: null if it lacks one, and text if others have text."""
    columns = []
    for field in schema:
        column = table[field.name] if field.name in table.schema.names else pa.nulls(len(table), field.type)
        columns.append(as_text(column) if pa.types.is_string(field.type) else column.cast(field.type))
    return pa.table(columns, schema=schema)


def missing_column(column: str, field: str, names: Sequence[str], where: str = "") -> DataError:
    """The error for a `column` of the option `field` that is not in `names`, with the nearest name."""
    nearest = difflib.get_close_matches(column, names, n=1, cutoff=0.0)
    listing = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    hint = f"Did you mean {nearest[0]!r}? " if nearest else ""
    return DataError(
        f"there is no column {column!r} ({field})", where=where, hint=f"{hint}The columns are {listing or 'none'}"
    )


def matching_columns(columns: Sequence[str], patterns: Sequence[str], field: str, where: str) -> tuple[str, ...]:
    """The columns that match the patterns (`kcm.inputs.vectors.matching`) of the option `field`.

    Raises DataError for a pattern without a match.
    """
    names = {*columns}
    for pattern in patterns:
        if pattern not in names and not matching(columns, [pattern]):
            raise missing_column(pattern, field, columns, where)
    return matching(columns, patterns)
