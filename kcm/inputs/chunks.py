"""The reader of tables: CSV, TSV, JSON lines and Parquet files as Arrow tables, a bounded number of rows at a time.

Cells of a CSV or TSV file stay text, so that a label "NA" and an id "007" stay as they are. Columns of Parquet keep
their types. In JSON lines a column of a chunk has the type of its values where they have one, else it is text.
"""

from __future__ import annotations

import csv
import io
import json
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from kcm._messages import ends_within_quotes, is_longer_than_a_block, is_not_utf8
from kcm.errors import DataError
from kcm.inputs.location import Location, naming_location

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
MAX_DEPTH = 100  # levels of a JSON value: what reads and writes it calls itself for each
BLOCK_BYTES = 4 << 20  # that are parsed at once, up to 32 being read ahead; no row of a CSV file may be longer
CHUNK_BYTES = 32 << 20  # of a Parquet file's values, unpacked
_MAX_ROWS = 65_536
_READ_BYTES = 1 << 20  # of a column of a local Parquet file, at once

Faults: TypeAlias = Mapping[int, str]
Wanted: TypeAlias = Callable[[str], bool]


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows of a file. `first` is the number of the first among the file's rows, from 1.

    `faults` say why a row cannot be used, by its position in the chunk. `short` does the same for rows of a CSV file
    with too few fields, whose missing cells are empty: whether that is a fault is the caller's to say. `names` are the
    columns of the file; those that it has had so far where not `all_names`. `typed` says that types are the file's own.
    """

    table: pa.Table
    first: int
    names: tuple[str, ...]
    num_rows: int
    faults: Faults = field(default_factory=dict)
    short: Faults = field(default_factory=dict)
    all_names: bool = True
    typed: bool = False


def read_chunks(location: Location, wanted: Wanted = lambda name: True) -> Iterator[Chunk]:
    """The rows of a file in order, with its columns that are `wanted`.

    Raises DataError, with one line that names the file, for one that is missing, cut, of another kind than its suffix
    says, not UTF-8, or has a column name twice.
    """
    readers = {".csv": _read_csv, ".tsv": _read_csv, ".jsonl": _read_json_lines, ".parquet": _read_parquet}
    with readable(location, tuple(readers)):
        yield from readers[location.suffix](location, wanted)


@contextmanager
def readable(location: Location, suffixes: Sequence[str]) -> Iterator[None]:
    """A block that reads `location`, of a suffix among `suffixes`; errors become a DataError with the reason."""
    if location.suffix not in suffixes:
        raise DataError(
            f"unknown kind of file {location.suffix!r}", where=str(location), hint=f"Use {', '.join(suffixes)}"
        )
    try:
        with naming_location(location):
            yield
    except UnicodeDecodeError:
        raise _not_utf8(location) from None
    except RecursionError:
        raise DataError("cannot read the file: a value is nested too deeply", where=str(location)) from None
    except (ValueError, csv.Error, pa.ArrowException) as error:
        if is_not_utf8(error):
            raise _not_utf8(location) from None
        if is_longer_than_a_block(error):
            raise DataError(
                f"a row is longer than {BLOCK_BYTES >> 20} MiB", where=str(location), hint="Is a quote left open?"
            ) from None
        raise DataError(f"cannot read the file: {' '.join(str(error).split())[:300]}", where=str(location)) from None


def _not_utf8(location: Location) -> DataError:
    return DataError("the file is not UTF-8", where=str(location), hint="Convert it, for example with iconv")


def _read_csv(location: Location, wanted: Wanted) -> Iterator[Chunk]:
    tabs = location.suffix == ".tsv"
    with location.open() as raw:
        source = _Source(raw)
        names = _header(source, tabs)
        if not names:
            return
        rows = _CsvRows(names, "\t" if tabs else ",", [name for name in names if wanted(name)])
        yield from rows.read(source)


def _header(source: _Source, tabs: bool) -> tuple[str, ...]:
    """The column names; none of an empty file."""
    head = source.head
    if not head.removeprefix(b"\xef\xbb\xbf").strip():
        return ()
    head = head[: head.rfind(b"\n") + 1] or head  # a character may be cut at the end
    head.decode()
    names: list[str] = pa_csv.open_csv(
        pa.py_buffer(head),
        read_options=pa_csv.ReadOptions(use_threads=False, block_size=max(len(head), 1024)),
        parse_options=pa_csv.ParseOptions(
            delimiter="\t" if tabs else ",", newlines_in_values=True, invalid_row_handler=lambda row: "skip"
        ),
    ).schema.names
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"the column {twice!r} occurs twice in the header")
    return tuple(names)


class _CsvRows:
    """Arrow's reader, and the rows that have another number of fields than the header, put back in their places."""

    def __init__(self, names: tuple[str, ...], delimiter: str, kept: Sequence[str]) -> None:
        self._names, self._delimiter, self._kept = names, delimiter, list(kept) or [names[-1]]
        self._odd: list[tuple[int, list[str]]] = []  # (position among all rows, its fields), in order
        self._num_blank, self._last_odd, self._is_cut = 0, -1, False

    def read(self, source: _Source) -> Iterator[Chunk]:
        reader = pa_csv.open_csv(
            pa.PythonFile(source, mode="r"),
            # In one thread, rows are numbered; it takes less time in all.
            read_options=pa_csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
            parse_options=pa_csv.ParseOptions(
                delimiter=self._delimiter, newlines_in_values=True, invalid_row_handler=self._put_aside
            ),
            convert_options=pa_csv.ConvertOptions(
                strings_can_be_null=False,
                include_columns=list(dict.fromkeys([*self._kept, self._names[-1]])),  # the last tells a cut file
                column_types={name: pa.string() for name in self._names},
            ),
        )
        position, last = 0, ""
        is_empty = True
        for batch in reader:
            if len(batch):
                last = batch[self._names[-1]][-1].as_py()
            chunk = self._merged(pa.table(batch).select(self._kept), position)
            position += chunk.num_rows
            is_empty = False
            yield chunk
        if self._odd or is_empty:
            chunk = self._merged(reader.schema.empty_table().select(self._kept), position)
            position += chunk.num_rows
            yield chunk
        if self._is_cut if self._last_odd == position - 1 else source.is_cut(last, self._delimiter):
            raise ValueError("it ends within a quoted cell; the file seems to be cut")

    def _put_aside(self, row: pa_csv.InvalidRow) -> str:
        if not row.text.strip(" "):
            self._num_blank += 1
            return "skip"
        self._last_odd = row.number - 2 - self._num_blank  # the header is row 1
        self._odd.append((self._last_odd, next(csv.reader([row.text], delimiter=self._delimiter), [])))
        self._is_cut = row.text.count('"') % 2 == 1 and _is_open(row.text, self._delimiter)
        return "skip"

    def _merged(self, table: pa.Table, first: int) -> Chunk:
        """A table whose first row has the position `first` among all rows, with the odd rows in their places."""
        num_odd = self._odd_within(len(table), first)
        odd, self._odd = self._odd[:num_odd], self._odd[num_odd:]
        if not odd:
            return Chunk(table, first + 1, self._names, len(table))
        cells = [dict(zip(self._names, fields, strict=False)) for _, fields in odd]
        between = pa.table(
            {name: pa.array([row.get(name, "") for row in cells], pa.string()) for name in table.schema.names}
        )
        is_odd = np.zeros(len(table) + num_odd, dtype=bool)
        is_odd[[position - first for position, _ in odd]] = True
        order = np.where(is_odd, len(table) + np.cumsum(is_odd) - 1, np.cumsum(~is_odd) - 1)
        messages = {at - first: f"{len(found)} fields instead of {len(self._names)}" for at, found in odd}
        too_long = {at - first for at, found in odd if len(found) > len(self._names)}
        return Chunk(
            pa.concat_tables([table, between]).take(order),
            first + 1,
            self._names,
            len(order),
            {at: message for at, message in messages.items() if at in too_long},
            {at: message for at, message in messages.items() if at not in too_long},
        )

    def _odd_within(self, num_rows: int, first: int) -> int:
        """How many of the odd rows come before the row that follows these `num_rows`."""
        if not num_rows:
            return len(self._odd)
        # The odd row number k lies behind (its position - first - k) rows of the batch.
        return bisect_left(range(len(self._odd)), num_rows, key=lambda k: self._odd[k][0] - first - k)


class _Source(io.RawIOBase):
    """A stream that shows its first bytes before it is read, and remembers its last ones."""

    def __init__(self, stream: pa.NativeFile) -> None:
        super().__init__()
        self._stream = stream
        self.head: bytes = stream.read(1 << 20)
        self._unread, self._tail = self.head, b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        given: bytes
        given, self._unread = (self._unread, b"") if self._unread else (self._stream.read(size), b"")
        if 0 <= size < len(given):
            given, self._unread = given[:size], given[size:]
        if given:
            self._tail = (self._tail + given[-(1 << 16) :])[-(1 << 16) :]
        return given

    def is_cut(self, last: str, delimiter: str) -> bool:
        """Whether the stream ended within a quoted cell, which was read as `last`."""
        end = self._tail.rstrip(b"\r\n")
        cell = last.rstrip("\r\n").replace('"', '""').encode()[-(1 << 15) :]
        opening = end[: len(end) - len(cell)][-2:]
        return end.endswith(cell) and opening[-1:] == b'"' and opening[:-1] in (b"", b"\n", b"\r", delimiter.encode())


def _is_open(row: str, delimiter: str) -> bool:
    """Whether a row ends within a quoted cell."""
    try:
        return not list(csv.reader([row], delimiter=delimiter, strict=True))
    except csv.Error as error:
        return ends_within_quotes(error)


def _read_json_lines(location: Location, wanted: Wanted) -> Iterator[Chunk]:
    names: dict[str, None] = {}
    first = 1
    for lines in line_blocks(location):
        rows, faults = [], {}
        for position, (number, line) in enumerate(lines):
            row, fault = json_object(line)
            rows.append(row)
            if fault:
                faults[position] = f"line {number}: {fault}"
        for row in rows:
            names.update(dict.fromkeys(row))
        kept = [name for name in names if wanted(name)]
        yield Chunk(columns_of(rows, kept), first, tuple(names), len(rows), faults, all_names=False)
        first += len(rows)


def line_blocks(location: Location) -> Iterator[list[tuple[int, str]]]:
    """The lines of a file that are not blank, with their numbers from 1, some megabytes at a time."""
    with location.open() as raw:
        block: list[tuple[int, str]] = []
        size = 0
        for number, line in enumerate(io.TextIOWrapper(raw, encoding="utf-8-sig", newline="\n"), start=1):
            if not line.strip():
                continue
            block.append((number, line))
            size += len(line)
            if size >= BLOCK_BYTES:
                yield block
                block, size = [], 0
        if block:
            yield block


def json_object(line: str) -> tuple[dict[str, Any], str]:
    """The object that a line holds; or an empty one and why the line holds none that can be used."""
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        return {}, f"not a JSON object: {error.msg}"
    except RecursionError:
        return {}, f"not a JSON object of at most {MAX_DEPTH} levels"
    except ValueError:
        return {}, "not a JSON object: an integer has thousands of digits"
    if not isinstance(value, dict):
        return {}, "not a JSON object"
    if line.count("[") + line.count("{") > MAX_DEPTH and _is_deep(value):
        return {}, f"not a JSON object of at most {MAX_DEPTH} levels"
    return value, ""


def _is_deep(value: object) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        containers = [each for each in level if isinstance(each, dict | list)]
        level = [child for each in containers for child in (each.values() if isinstance(each, dict) else each)]
    return any(isinstance(each, dict | list) for each in level)


def columns_of(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> pa.Table:
    """Rows of Python values as columns; null where a row has no such key."""
    return pa.table([_column([row.get(name) for row in rows]) for name in names], names=list(names))


def _column(values: list[Any]) -> pa.Array:
    """Values of one type as what they are; of several types, each as Python writes it, NaN as null."""
    kinds = set(map(type, values)) - {type(None)}
    with suppress(pa.ArrowException, OverflowError, UnicodeEncodeError):  # mixed lists; long integers; surrogates
        if kinds <= {str}:
            return pa.array(values, pa.string())
        if kinds in ({int}, {float}, {bool}, {list}) or (kinds == {dict} and all(map(_is_picture, values))):
            return pa.array(values)
    return pa.array([_text(value) for value in values], pa.string())


def _is_picture(value: dict[str, Any] | None) -> bool:
    return value is None or value.keys() <= {"bytes", "path"}


def _text(value: object) -> str | None:
    if value is None or value != value:  # NaN is the only value that differs from itself
        return None
    # Lone surrogates, which JSON can spell and UTF-8 cannot, are spelled out.
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def _read_parquet(location: Location, wanted: Wanted) -> Iterator[Chunk]:
    with open_parquet(location) as file:
        yield from parquet_chunks(file, wanted, range(file.num_row_groups))


def open_parquet(location: Location) -> pq.ParquetFile:
    """A Parquet file, opened: read bit by bit here, where that costs nothing, and a row group at once from a store."""
    if location.is_local:
        return pq.ParquetFile(location.open_at(), buffer_size=_READ_BYTES, pre_buffer=False)
    return pq.ParquetFile(location.open_at(), pre_buffer=True)


def parquet_chunks(file: pq.ParquetFile, wanted: Wanted, groups: range) -> Iterator[Chunk]:
    """The rows of some row groups of an open file."""
    names = tuple(file.schema_arrow.names)
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"the column {twice!r} occurs twice")
    meta = file.metadata
    first = 1 + sum(meta.row_group(group).num_rows for group in range(groups.start))
    kept = [name for name in names if wanted(name)]
    if not meta.num_rows:
        yield Chunk(file.schema_arrow.empty_table().select(kept), 1, names, 0, typed=True)
    for group in groups:
        size = meta.row_group(group).total_byte_size // max(meta.row_group(group).num_rows, 1)
        batch_size = min(max(CHUNK_BYTES // max(size, 1), 16), _MAX_ROWS)
        for batch in file.iter_batches(batch_size=batch_size, row_groups=[group], columns=kept):
            yield Chunk(pa.table(batch), first, names, len(batch), typed=True)
            first += len(batch)
