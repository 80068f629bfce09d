"""Writers of rows with their answers to CSV, JSON lines or Parquet."""

from __future__ import annotations

import json
import math
import posixpath
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from kcm.inputs.chunks import Chunk, known_suffix
from kcm.inputs.location import Location
from kcm.inputs.tables import fitted

WRITTEN = (".csv", ".jsonl", ".parquet")


@contextmanager
def writing(
    path: Path, suffix: str, source: pa.Schema, answers: pa.Schema
) -> Iterator[Callable[[Chunk, pa.Table], None]]:
    """A function within the block that appends rows to a file: a chunk of the input, and a table of answers to it."""
    schema = pa.schema([*source, *answers])
    if suffix == ".csv":
        schema = pa.schema([(field.name, field.type if _is_plain(field.type) else pa.string()) for field in schema])
    with ExitStack() as stack:
        writer = _opened(path, suffix, schema, stack)

        def write(chunk: Chunk, answer_rows: pa.Table) -> None:
            if suffix == ".jsonl":
                records = chunk.table.to_pylist() if chunk.objects is None else chunk.objects
                for record, answer in zip(records, answer_rows.to_pylist(), strict=True):
                    writer.write((_json(record | answer) + "\n").encode())
                return
            columns = [*fitted(chunk.table, source).columns, *answer_rows.columns]
            if suffix == ".csv":
                columns = list(map(_plain_column, columns))
            writer.write_table(pa.table(columns, schema=schema))

        yield write


def written_suffix(target: Location) -> str:
    """The suffix that says how a file is written; DataError naming the supported ones."""
    return known_suffix(target, posixpath.splitext(target.name)[1], WRITTEN)


def _opened(path: Path, suffix: str, schema: pa.Schema, stack: ExitStack) -> Any:
    if suffix == ".jsonl":
        return stack.enter_context(path.open("wb"))
    if suffix == ".parquet":
        return stack.enter_context(pq.ParquetWriter(path, schema))
    return stack.enter_context(csv.CSVWriter(path, schema))


def _is_plain(kind: pa.DataType) -> bool:
    """Whether Arrow writes values of a type to CSV as people do."""
    return bool(pa.types.is_primitive(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as it is written to CSV: nested values are JSON, other values that CSV lacks are text."""
    if _is_plain(column.type):
        return column
    values = (_json(value) if isinstance(value, dict | list) else value for value in column.to_pylist())
    return pa.chunked_array([[None if value is None else str(value) for value in values]], pa.string())


def _json(value: Any) -> str:
    return json.dumps(_finite(value), default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    """`value` without NaN and infinity, which JSON lacks."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(child) for key, child in value.items()}
    return [_finite(child) for child in value] if isinstance(value, list) else value
