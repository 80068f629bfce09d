"""Tables as a whole: in memory, for those of a size that a person looks at; their columns, and missing ones.

Chunks of a JSON or Excel file may have other types of a column, by the values in them.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa

from kcm.errors import DataError
from kcm.inputs.cells import as_text
from kcm.inputs.chunks import open_parquet, read_chunks, readable
from kcm.inputs.location import Location

_SHOWN = 20  # columns that a message lists


def read_frames(path: str | Path, kinds: Collection[str]) -> Iterator[pd.DataFrame]:
    """The table of a file of one of `kinds`, some thousand rows at a time. Raises what `read_frame` raises."""
    return (table.to_pandas() for table in _tables(path, kinds))


def read_frame(path: str | Path, kinds: Collection[str]) -> pd.DataFrame:
    """The whole table of a file of one of `kinds`, such as .csv.

    Raises DataError as `read_chunks` does, and for a row that has more fields than the header.
    """
    return pa.concat_tables(_tables(path, kinds), promote_options="permissive").to_pandas()


def _tables(path: str | Path, kinds: Collection[str]) -> Iterator[pa.Table]:
    location = Location.of(path)
    is_empty = True
    with readable(location, kinds):
        for chunk in read_chunks(location):
            for position, fault in chunk.faults.items():
                raise ValueError(f"row {chunk.first + position}: {fault}")
            is_empty = False
            yield chunk.table
        if is_empty:
            raise DataError("the file is empty", where=str(location))


def scanned(location: Location) -> tuple[pa.Schema, int]:
    """The columns of a file, with types that hold the values of all its rows, and the number of rows.

    Of a Parquet file both are known from its end. Raises DataError as `read_chunks` does.
    """
    if location.suffix == ".parquet":
        with readable(location), open_parquet(location) as file:
            return file.schema_arrow, file.metadata.num_rows
    types: dict[str, pa.DataType] = {}
    num_rows = 0
    for chunk in read_chunks(location):
        num_rows += chunk.num_rows
        for field in chunk.table.schema:
            types[field.name] = _common(types.get(field.name, field.type), field.type)
    return pa.schema(
        [(name, pa.string() if pa.types.is_null(kind) else kind) for name, kind in types.items()]
    ), num_rows


def _common(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The type that holds the values of both; text where there is no other."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    return pa.float64() if {one, other} == {pa.int64(), pa.float64()} else pa.string()


def fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A chunk of a file with the columns of `scanned`: null where it lacks one, and text where others have text."""
    columns = []
    for field in schema:
        column = table[field.name] if field.name in table.schema.names else pa.nulls(len(table), field.type)
        columns.append(as_text(column) if pa.types.is_string(field.type) else column.cast(field.type))
    return pa.table(columns, schema=schema)


def missing_column(column: str, field: str, names: Sequence[str], where: str) -> DataError:
    """The error for a `column`, of the option `field`, that is not in `names`; it gives the nearest name."""
    nearest = difflib.get_close_matches(column, names, n=1, cutoff=0.0)
    shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    hint = f"Did you mean {nearest[0]!r}? " if nearest else ""
    return DataError(
        f"there is no column {column!r} ({field})", where=where, hint=f"{hint}The columns are {shown or 'none'}"
    )
