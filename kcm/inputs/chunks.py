"""The reader of tables: files of every kind as Arrow tables, a bounded number of rows at a time.

Cells of CSV and TSV files are text, so a label "NA" and an id "007" stay as they are. Columns of Parquet files keep
their types. In JSON and Excel, a column of a chunk has the common type of its values, or else is text. A row that
cannot be used keeps its position, and `Chunk.faults` says why.

pyarrow parses Parquet files; pandas parses Excel. Python parses CSV, where pyarrow loses the position of a bad row, and
JSON, where pyarrow stops at the first bad line, DuckDB drops the reason, and both give a column the type of its first
values.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from zipfile import BadZipFile, ZipFile

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kcm.errors import ConfigError, DataError
from kcm.inputs.cell_text import written
from kcm.inputs.location import Location, naming_location
from kcm.inputs.textfile import (
    MAX_WHOLE,
    UNDECODABLE,
    UNDECODABLE_FAULT,
    UNKNOWN_FORMAT,
    TextFormat,
    column_names,
    lines_of,
    open_text,
    read_csv,
)

BLOCK_BYTES = 4 << 20  # bytes of text per chunk
CHUNK_BYTES = 32 << 20  # bytes of the values of a chunk
_MAX_ROWS = 65_536
_READ_BYTES = 1 << 20  # bytes per read from a column of a local Parquet file
_SHEETS = (".xlsx", ".xls", ".ods")

Wanted: TypeAlias = Callable[[str], bool]


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows of a file. `first` is the number of the first row in the file, from 1.

    `faults` are the reasons why rows cannot be used, by position in the chunk. In a row of a CSV file with too few
    fields, the missing cells are empty. `broken` are the positions of CSV rows with line breaks in a cell. `names` are
    the columns of the file, or, if not `all_names`, the columns so far. `objects` are the original rows of a JSON or
    Excel file.
    """

    table: pa.Table
    first: int
    names: tuple[str, ...]
    faults: Mapping[int, str] = field(default_factory=dict)
    broken: Sequence[int] = ()
    all_names: bool = True
    objects: Sequence[dict[str, Any]] | None = None

    @property
    def num_rows(self) -> int:
        """Rows of the chunk."""
        return len(self.table) if self.objects is None else len(self.objects)


def read_chunks(
    location: Location,
    wanted: Wanted = lambda name: True,
    text_format: TextFormat = UNKNOWN_FORMAT,
) -> Iterator[Chunk]:
    """The rows of a file in order, with its `wanted` columns.

    Raises DataError with one line that names the file: for a missing or truncated file, a file of another kind than its
    suffix says, or a repeated column name.
    """
    with readable(location):
        yield from _READERS[location.suffix](location, wanted, text_format)


def row_names(stem: str, first: int, size: int) -> pa.Array:
    """Names for rows without an id: `stem` and their number, starting at `first`."""
    numbers = pa.array(range(first, first + size)).cast(pa.string())
    return pc.binary_join_element_wise(stem, numbers, "-")


def known_suffix(location: Location, suffix: str, suffixes: Iterable[str] = ()) -> str:
    """A suffix in `suffixes`, or in all readable ones; DataError listing these for any other."""
    suffixes = tuple(suffixes) or SUFFIXES
    if suffix not in suffixes:
        raise DataError(f"unknown kind of file {suffix!r}", where=str(location), hint=f"Use {', '.join(suffixes)}")
    return suffix


@contextmanager
def readable(location: Location, suffixes: Iterable[str] = ()) -> Iterator[None]:
    """A block that reads `location`, with a suffix in `suffixes` or any known one; errors become a DataError.

    Its one line names the file and the reason.
    """
    known_suffix(location, location.suffix, suffixes)
    try:
        with naming_location(location):
            yield
    except RecursionError:
        raise DataError("cannot read the file: a value is nested too deeply", where=str(location)) from None
    except (ValueError, pa.ArrowException) as error:
        raise DataError(f"cannot read the file: {' '.join(str(error).split())[:300]}", where=str(location)) from None


def _read_csv(location: Location, is_wanted: Wanted, text_format: TextFormat) -> Iterator[Chunk]:
    first = 1
    for rows in read_csv(location, text_format.found_in(location)):
        names = tuple(rows.table.column_names)
        columns = [name for name in names if is_wanted(name)] or [names[-1]]
        yield Chunk(rows.table.select(columns), first, names, rows.faults, rows.broken)
        first += len(rows.table)


def _read_json_lines(location: Location, is_wanted: Wanted, text_format: TextFormat) -> Iterator[Chunk]:
    names: dict[str, None] = {}
    first = 1
    with open_text(location, text_format.found_in(location).encoding or "utf-8") as stream:
        lines = ((number, line) for number, line in enumerate(lines_of(stream), start=1) if line.strip())
        while block := _block(lines):
            objects, faults = [], {}
            for position, (number, line) in enumerate(block):
                row, fault = _json_object(line)
                objects.append(row)
                names.update(dict.fromkeys(row))
                if fault:
                    faults[position] = f"line {number}: {fault}"
            yield _objects_chunk(objects, first, names, is_wanted, faults, all_names=False)
            first += len(objects)


def _block(lines: Iterator[tuple[int, str]]) -> list[tuple[int, str]]:
    """The next lines, a few megabytes of them."""
    block: list[tuple[int, str]] = []
    size = 0
    while size < BLOCK_BYTES and (pair := next(lines, None)):
        block.append(pair)
        size += len(pair[1])
    return block


def _json_object(line: str) -> tuple[dict[str, Any], str]:
    """The object in a line; or an empty one and the reason why the line has no usable object."""
    if UNDECODABLE in line:
        return {}, UNDECODABLE_FAULT
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:  # nested too deeply, or an integer of thousands of digits
        return {}, f"not a JSON object: {getattr(error, 'msg', error)}"
    return (value, "") if isinstance(value, dict) else ({}, "not a JSON object")


def _read_json(location: Location, is_wanted: Wanted, text_format: TextFormat) -> Iterator[Chunk]:
    """A list of objects, read whole; or JSON lines, if the first line is an object."""
    with open_text(location, text_format.found_in(location).encoding or "utf-8") as stream:
        content = stream.read(MAX_WHOLE + 1)
    first_line, _, _ = content.lstrip().partition("\n")
    if first_line[:1] == "{" and not _json_object(first_line)[1]:
        yield from _read_json_lines(location, is_wanted, text_format)
        return
    if len(content) > MAX_WHOLE:
        raise ValueError(f"it holds more than {MAX_WHOLE >> 20} MiB. Save it as JSON lines")
    objects = json.loads(content)
    if not isinstance(objects, list) or not all(isinstance(row, dict) for row in objects):
        raise ValueError("expected a list of objects")
    names = dict.fromkeys(name for row in objects for name in row)
    for start in range(0, len(objects), _MAX_ROWS):
        block = objects[start : start + _MAX_ROWS]
        faults: dict[int, str] = {}
        for at, row in enumerate(block if UNDECODABLE in content else ()):
            if UNDECODABLE in json.dumps(row, ensure_ascii=False):
                block[at], faults[at] = {}, UNDECODABLE_FAULT
        yield _objects_chunk(block, start + 1, names, is_wanted, faults)


def _objects_chunk(
    objects: list[dict[str, Any]],
    first: int,
    names: Iterable[str],
    is_wanted: Wanted,
    faults: Mapping[int, str],
    *,
    all_names: bool = True,
) -> Chunk:
    if any(written(name) != name for name in names):  # half a surrogate pair
        objects = [{str(written(name)): value for name, value in row.items()} for row in objects]
        names = [str(written(name)) for name in names]
    table = table_of(objects, [name for name in names if is_wanted(name)])
    return Chunk(table, first, tuple(names), faults, all_names=all_names, objects=objects)


def table_of(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> pa.Table:
    """Rows of Python values as columns; null for a missing key."""
    return pa.table([_column([row.get(name) for row in rows]) for name in names], names=list(names))


def _column(values: list[Any]) -> pa.Array:
    """Values of one type unchanged, numbers as numbers; of several types, as text."""
    kinds = set(map(type, values)) - {type(None)}
    with suppress(pa.ArrowException, OverflowError, UnicodeEncodeError):  # mixed lists; long integers; surrogates
        if kinds == {str}:
            return pa.array(values, pa.string())
        if kinds == {int, float}:
            return pa.array(values, pa.float64())
        if not kinds or kinds in ({int}, {float}, {bool}, {list}):
            return pa.array(values)
    return pa.array(map(written, values), pa.string())


def _read_excel(location: Location, is_wanted: Wanted, text_format: TextFormat) -> Iterator[Chunk]:
    """The first sheet; its first non-blank row holds the names."""
    with _workbook(location) as book:
        sheet = pd.read_excel(book, header=None, dtype=object, na_filter=False).to_numpy()
    rows = [row for row in sheet.tolist() if any(cell != "" for cell in row)]
    if not rows:
        return
    names = column_names([written(cell) or "" for cell in rows[0]])
    for start in range(1, max(len(rows), 2), _MAX_ROWS):
        block = rows[start : start + _MAX_ROWS]
        objects = [dict(zip(names, map(_excel_value, row), strict=False)) for row in block]
        yield _objects_chunk(objects, start, names, is_wanted, {})


@contextmanager
def _workbook(location: Location) -> Iterator[pd.ExcelFile]:
    """A workbook, read within the block. Raises ConfigError if the package for it is missing."""
    content = io.BytesIO(location.open().read(MAX_WHOLE + 1))
    if max(content.getbuffer().nbytes, _unpacked_bytes(content)) > MAX_WHOLE:
        raise ValueError(f"it holds more than {MAX_WHOLE >> 20} MiB. Save the sheet as CSV or Parquet")
    try:
        with pd.ExcelFile(content, engine="calamine") as book:
            yield book
    except ImportError:
        raise ConfigError(
            "Excel files need a package that is not installed",
            where=str(location),
            hint="pip install 'kcm-cascade[excel]'",
        ) from None
    except Exception as error:  # errors of the engine that pandas does not wrap
        raise ValueError(str(error)) from None


def _unpacked_bytes(content: io.BytesIO) -> int:
    """Bytes of a workbook's parts, which are compressed; 0 for the older formats."""
    with suppress(BadZipFile), ZipFile(content) as archive:
        return sum(part.file_size for part in archive.infolist())
    return 0


def sheet_names(location: Location) -> tuple[str, ...]:
    """The sheets of an Excel file, of which the first is read; () for other files."""
    if location.suffix not in _SHEETS:
        return ()
    with readable(location), _workbook(location) as book:
        return tuple(map(str, book.sheet_names))


def _excel_value(cell: object) -> object:
    """A cell as a JSON value: an empty cell is null, whole numbers are integers, dates are text."""
    if isinstance(cell, float) and cell.is_integer():
        return int(cell)
    return cell if isinstance(cell, str | int | float | bool) and cell != "" else written(cell) or None


def _read_parquet(location: Location, is_wanted: Wanted, text_format: TextFormat) -> Iterator[Chunk]:
    with open_parquet(location) as file:
        names = tuple(file.schema_arrow.names)
        if repeated := next((name for name, count in Counter(names).items() if count > 1), None):
            raise ValueError(f"the column {repeated!r} occurs twice")
        columns = [name for name in names if is_wanted(name)]
        first = 1
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            size = group.total_byte_size // max(group.num_rows, 1)
            num_rows = min(max(CHUNK_BYTES // max(size, 1), 16), _MAX_ROWS)
            for batch in file.iter_batches(batch_size=num_rows, row_groups=[number], columns=columns):
                yield Chunk(pa.table(batch).select(columns), first, names)
                first += len(batch)
        if first == 1:
            yield Chunk(file.schema_arrow.empty_table().select(columns), first, names)


def open_parquet(location: Location) -> pq.ParquetFile:
    """An open Parquet file. A local file is read in pieces, a remote one by row group."""
    if location.is_local:
        return pq.ParquetFile(location.open_at(), buffer_size=_READ_BYTES, pre_buffer=False)
    return pq.ParquetFile(location.open_at(), pre_buffer=True)


_READERS: dict[str, Callable[[Location, Wanted, TextFormat], Iterator[Chunk]]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".json": _read_json,
    ".parquet": _read_parquet,
    **dict.fromkeys(_SHEETS, _read_excel),
}
TEXTS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
SUFFIXES = tuple(_READERS)
