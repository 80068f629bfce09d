"""CSV and TSV files, parsed by pyarrow a few megabytes at a time. Every cell is text.

pyarrow reports rows with too few or too many fields separately. This module puts them back in their positions.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from kcm.inputs.location import Location
from kcm.inputs.textfile import UNDECODABLE, UNDECODABLE_FAULT, TextFormat, open_text, read_header

BLOCK_BYTES = 4 << 20  # bytes parsed together; no row is longer
_HANDFUL = 5  # most lines of a cell that may read as rows; more mean an open quote
_PIECE = 1 << 20  # characters encoded together
_END = '\0"end"'  # appended as the last row of every file: a file truncated within quotes swallows it
csv.field_size_limit(BLOCK_BYTES)


@dataclass(frozen=True)
class CsvRows:
    """Consecutive rows of a file. Missing cells of a short row are empty; surplus cells are cut.

    `faults` and `short` are as in `Chunk`. `broken` are the positions of rows with line breaks in a cell.
    """

    table: pa.Table
    faults: dict[int, str]
    short: dict[int, str]
    broken: tuple[int, ...]


def read_csv(location: Location, text_format: TextFormat) -> Iterator[CsvRows]:
    """The non-blank rows of a file; a table without rows if there is only a header, nothing for an empty file.

    Raises ValueError for a repeated column name, a file that ends within a quoted cell, a row of more than
    `BLOCK_BYTES`, and a cell that swallowed rows.
    """
    delimiter = text_format.delimiter or ","
    with open_text(location, text_format.encoding or "utf-8") as stream:
        names = read_header(stream, delimiter)
        first = 1
        for table, num_fields in _blocks(stream, names, delimiter) if names else ():
            broken = _rows_with_breaks(table, delimiter, first)
            table, faults = _mark_end(table)
            wrong = {row: f"{count} fields instead of {len(names)}" for row, count in num_fields.items()}
            short = {row: fault for row, fault in wrong.items() if num_fields[row] < len(names)}
            yield CsvRows(table, faults | {row: wrong[row] for row in wrong.keys() - short.keys()}, short, broken)
            first += len(table)


def _blocks(
    stream: io.TextIOWrapper, names: tuple[str, ...], delimiter: str
) -> Iterator[tuple[pa.Table, dict[int, int]]]:
    """Tables of rows, at least one, and the number of fields of each wrong row."""
    wrong: list[tuple[int, list[str]]] = []  # pyarrow's row number, from 1, and the cells
    is_whole = False

    def keep(row: arrow_csv.InvalidRow) -> str:
        nonlocal is_whole
        is_whole = row.text == _END
        wrong.append((row.number, next(csv.reader(io.StringIO(row.text, newline=""), delimiter=delimiter), [])))
        return "skip"

    num_read = num_yielded = 0
    for valid in _parse(stream, names, delimiter, keep):
        if len(names) == 1 and len(valid) and valid[0][-1].as_py() == _END:
            is_whole, valid = True, valid.slice(0, len(valid) - 1)
        size = 0
        while size < len(wrong) and wrong[size][0] <= num_read + 1 + len(valid) + size:
            size += 1
        places = [number - num_read - 1 - before for before, (number, _) in enumerate(wrong[:size])]
        table, num_fields = _insert_rows(valid, [cells for _, cells in wrong[:size]], places)
        num_read += len(valid) + size
        num_yielded += len(table)
        del wrong[:size]
        if len(table):
            yield table, num_fields
    if not is_whole:
        raise ValueError("it ends within a quoted cell; the file seems to be cut")
    if not num_yielded:
        yield _insert_rows(pa.table({name: pa.array([], pa.string()) for name in names}), [], [])


def _parse(
    stream: io.TextIOWrapper, names: tuple[str, ...], delimiter: str, keep: Callable[[arrow_csv.InvalidRow], str]
) -> Iterator[pa.Table]:
    """The rows with the right number of fields, then an empty table; `keep` receives the other rows."""
    schema = pa.schema([(name, pa.string()) for name in names])
    try:
        batches = arrow_csv.open_csv(
            pa.PythonFile(io.BufferedReader(_Utf8(stream)), mode="r"),
            arrow_csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES, column_names=list(names)),
            arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=keep),
            arrow_csv.ConvertOptions(column_types=schema, strings_can_be_null=False),
        )
        yield from map(pa.table, batches)
    except pa.ArrowInvalid as error:
        if "straddl" not in str(error):
            raise
        raise ValueError(f"a row is longer than {BLOCK_BYTES >> 20} MiB. Is a quote left open?") from None
    yield schema.empty_table()


class _Utf8(io.RawIOBase):
    """The rest of a text in UTF-8, and `_END`."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self._stream, self._remaining, self._has_ended = stream, memoryview(b""), False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._remaining and not self._has_ended:
            text = self._stream.read(_PIECE)
            self._has_ended = not text
            self._remaining = memoryview((text or f"\n{_END}").encode())
        size = min(len(buffer), len(self._remaining))
        buffer[:size], self._remaining = self._remaining[:size], self._remaining[size:]
        return size


def _insert_rows(valid: pa.Table, rows: list[list[str]], places: list[int]) -> tuple[pa.Table, dict[int, int]]:
    """`valid` with the other rows inserted at `places`, and their numbers of fields by new position.

    Blank rows are dropped.
    """
    width = valid.num_columns
    rows_to_add = [
        number for number, cells in enumerate(rows) if len(cells) > 1 or "".join(cells).strip(" ") not in ("", _END)
    ]
    if not rows_to_add:
        return valid, {}
    cells = zip(*([*rows[number], *[""] * width][:width] for number in rows_to_add), strict=True)
    addition = pa.table([pa.array(column, pa.string()) for column in cells], names=valid.column_names)
    at = [places[number] for number in rows_to_add]
    order = np.insert(np.arange(len(valid)), at, len(valid) + np.arange(len(rows_to_add)))
    table = pa.concat_tables([valid, addition]).take(pa.array(order))
    return table, {
        place + before: len(rows[number]) for before, (place, number) in enumerate(zip(at, rows_to_add, strict=True))
    }


def _mark_end(table: pa.Table) -> tuple[pa.Table, dict[int, str]]:
    """A table without the mark of undecodable bytes, and the faults of the rows with the mark."""
    faults: dict[int, str] = {}
    for number, name in enumerate(table.column_names):
        marked_N = pc.match_substring(table[name], UNDECODABLE).to_numpy()
        if marked_N.any():
            faults |= dict.fromkeys(np.flatnonzero(marked_N).tolist(), UNDECODABLE_FAULT)
            table = table.set_column(number, name, pc.replace_substring(table[name], UNDECODABLE, "\ufffd"))
    return table, faults


def _rows_with_breaks(table: pa.Table, delimiter: str, first: int) -> tuple[int, ...]:
    """The positions of rows with line breaks in a cell. Raises ValueError for a cell that swallowed rows."""
    marked: set[int] = set()
    for name in table.column_names:
        num_breaks_N = pc.count_substring(table[name], "\n").to_numpy()
        marked.update(np.flatnonzero(num_breaks_N).tolist())
        for row in np.flatnonzero(num_breaks_N > _HANDFUL).tolist():
            lines = table[name][row].as_py().splitlines()[1:]
            likely = [line for line in lines if line.count(delimiter) >= table.num_columns - 1]
            if len(likely) > _HANDFUL and (count := _num_rows(likely, table, delimiter)) > _HANDFUL:
                raise ValueError(
                    f"a cell of row {first + row}, column {name!r}, holds {count} lines that read as rows: a quote is "
                    "left open. If the cell is right, save the table as JSON lines or Parquet"
                )
    return tuple(sorted(marked))


def _num_rows(lines: Sequence[str], table: pa.Table, delimiter: str) -> int:
    """The number of lines that read as rows of the table: as many fields, one of them shaped like its column."""
    shapes = [set(map(_shape, column.to_pylist())) - {""} for column in table.columns]
    rows = (row for row in csv.reader(lines, delimiter=delimiter) if len(row) == len(shapes))
    return sum(
        any(_shape(cell) in shapes_of_column for cell, shapes_of_column in zip(row, shapes, strict=True))
        for row in rows
    )


def _shape(cell: str) -> str:
    """A cell with one digit in place of each number."""
    return re.sub(r"\d+", "0", cell)
