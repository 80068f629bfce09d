"""Text files as people have them: encoding and delimiter are detected from the first bytes; CSV and TSV files.

Invalid bytes become `UNDECODABLE`, so that a reader can name the row and continue. Every cell of a CSV file is text.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kcm.errors import ConfigError
from kcm.inputs.cell_text import unguarded, with_formulas
from kcm.inputs.location import Location

UNDECODABLE = "\ufdd0"  # a noncharacter: no text contains it
UNDECODABLE_FAULT = "the row holds bytes that are not of the file's encoding"
BLOCK_BYTES = 4 << 20  # characters of the rows read together; no cell is longer
MAX_LINE = 32 << 20  # characters
MAX_WHOLE = 256 << 20  # of a file that is read whole
_HANDFUL = 5  # most lines of a cell that may read as rows; more mean an open quote
_END = '\0"end"'  # appended as the last row of every file: a file truncated within quotes swallows it
_SAMPLE_BYTES = 4 << 20
_DELIMITERS = ",;\t|"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
csv.field_size_limit(BLOCK_BYTES)
codecs.register_error("kcm.undecodable", lambda error: (UNDECODABLE, getattr(error, "end")))  # noqa: B009


@dataclass(frozen=True)
class TextFormat:
    """The format of a text file. None: detected."""

    delimiter: str | None = None
    encoding: str | None = None

    def found_in(self, location: Location) -> TextFormat:
        """The same format with every None detected. Raises ConfigError for an unknown encoding."""
        with location.open() as stream:
            head = stream.read(_SAMPLE_BYTES)
        encoding = self.encoding or find_encoding(head)
        try:
            text = codecs.getincrementaldecoder(encoding)("kcm.undecodable").decode(head)
        except LookupError:
            raise ConfigError(
                f"unknown encoding {encoding!r}", where="source.encoding", hint="Use utf-8, cp1252, utf-16, …"
            ) from None
        is_tabs = location.suffix == ".tsv"
        return replace(
            self, encoding=encoding, delimiter=self.delimiter or find_delimiter(text, "\t" if is_tabs else ",")
        )


UNKNOWN_FORMAT = TextFormat()


def open_text(location: Location, encoding: str) -> io.TextIOWrapper:
    """The text of a file, decompressed; line ends unchanged."""
    return io.TextIOWrapper(location.open(), encoding=encoding, errors="kcm.undecodable", newline="")


def lines_of(stream: io.TextIOWrapper) -> Iterator[str]:
    """The lines of a file. Raises ValueError for a longer one than `MAX_LINE`, which may be small when compressed."""
    for number, line in enumerate(iter(partial(stream.readline, MAX_LINE + 1), ""), start=1):
        if len(line) > MAX_LINE:
            raise ValueError(f"line {number} is longer than {MAX_LINE >> 20} MiB")
        yield line


def find_encoding(head: bytes) -> str:
    """The encoding of a file that begins with these bytes.

    A byte-order mark decides. Without one: UTF-16 if every other byte is zero; UTF-8 unless more special characters
    break it than fit it; otherwise Windows-1252, which contains Latin-1.
    """
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    for start, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if (half := head[start:1000:2]) and half.count(0) > 0.7 * len(half):
            return encoding
    text = codecs.getincrementaldecoder("utf-8")("kcm.undecodable").decode(head)
    num_special = len(text) - len(text.encode("ascii", "ignore"))
    return "utf-8" if num_special >= 2 * text.count(UNDECODABLE) else "cp1252"


def find_delimiter(text: str, usual: str = ",") -> str:
    """The delimiter of a table: the most frequent mark in its header, outside quotes; `usual` if there is none.

    The header decides, not the rows: texts contain commas and semicolons.
    """
    header = re.sub(r'"[^"]*("|$)', "", text.lstrip().partition("\n")[0])
    marks: list[str] = list(dict.fromkeys([usual, *_DELIMITERS]))
    return max(marks, key=header.count)


def column_names(header: Sequence[str]) -> tuple[str, ...]:
    """The cells of a header as names; an empty one gets its number. Raises ValueError for a repeated name."""
    names = [name.strip() or f"column_{number}" for number, name in enumerate(header, start=1)]
    if repeated := next((name for name, count in Counter(names).items() if count > 1), None):
        raise ValueError(f"the column {repeated!r} occurs twice in the header")
    return tuple(names)


@dataclass(frozen=True)
class CsvRows:
    """Consecutive rows of a file. Missing cells of a short row are empty; surplus cells are cut, which is a fault.

    `faults` are as in `Chunk`. `broken` are the positions of rows with line breaks in a cell.
    """

    table: pa.Table
    faults: dict[int, str]
    broken: tuple[int, ...]


def read_csv(location: Location, text_format: TextFormat) -> Iterator[CsvRows]:
    """The non-blank rows of a file; a table without rows if there is only a header, nothing for an empty file.

    Raises ValueError for a repeated column name, a file that ends within a quoted cell, a cell of more than
    `BLOCK_BYTES`, and a cell that swallowed rows.
    """
    try:
        with open_text(location, text_format.encoding or "utf-8") as stream:
            yield from _read_rows(stream, text_format.delimiter or ",")
    except csv.Error:
        raise ValueError(f"a row is longer than {BLOCK_BYTES >> 20} MiB. Is a quote left open?") from None


def _read_rows(stream: io.TextIOWrapper, delimiter: str) -> Iterator[CsvRows]:
    lines = lines_of(stream)
    header = (row for row in csv.reader(lines, delimiter=delimiter) if any(map(str.strip, row)))
    names, first = column_names([*map(unguarded, next(header, []))]), 1
    for block in _blocks(lines, len(names), delimiter) if names else ():
        num_fields = {row: len(cells) for row, cells in enumerate(block) if len(cells) != len(names)}
        for row in num_fields:
            block[row] = [*block[row], *[""] * len(names)][: len(names)]
        columns = zip(*block, strict=True) if block else [()] * len(names)
        cells = (with_formulas(pa.array(column, pa.string()), unguarded) for column in columns)
        table = pa.table([*cells], names=list(names))
        broken = _rows_with_breaks(table, delimiter, first)
        table, faults = _mark_end(table)
        for row, count in num_fields.items():
            if count > len(names):
                faults[row] = f"{count} fields instead of {len(names)}"
        yield CsvRows(table, faults, broken)
        first += len(table)


def _blocks(lines: Iterator[str], num_columns: int, delimiter: str) -> Iterator[list[list[str]]]:
    """The rows that are not blank, a few megabytes at a time; at least one block, possibly empty."""
    block: list[list[str]] = []
    size = 0
    for row in csv.reader(chain(lines, [_END]), delimiter=delimiter):
        if size > BLOCK_BYTES and row != [_END]:
            yield block
            block, size = [], 0
        if len(row) > 1 or (row and (num_columns == 1 or row[0].strip(" "))):
            block.append(row)
            size += len(row) + sum(map(len, row))
    if block.pop() != [_END]:
        raise ValueError("it ends within a quoted cell; the file seems to be cut")
    yield block


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
