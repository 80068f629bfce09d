"""Files with rows to answer; they are read like a source of training rows, without labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from kcm.errors import DataError
from kcm.inputs.cell_text import as_text
from kcm.inputs.chunks import read_chunks
from kcm.inputs.location import Location
from kcm.inputs.tables import missing_column, scanned
from kcm.inputs.vectors import FEATURES, matching
from kcm.tasks.readers.columns import FoundTable, Normaliser, TableLayout
from kcm.tasks.readers.vectors import VectorColumns
from kcm.tasks.sequence import VECTOR

ID = "id"  # the column with a row's own id, if the file has one


@dataclass(frozen=True)
class InputRows:
    """A file of rows that was scanned once, for its columns (`schema`) and its number of rows."""

    location: Location
    normaliser: Normaliser
    schema: pa.Schema
    num_rows: int

    @classmethod
    def opened(
        cls,
        location: Location,
        text_column: str | None = None,
        image_column: str | None = None,
        task_column: str | None = None,
        *,
        vectors: Sequence[str] | None = None,
        image_root: Location | None = None,
    ) -> InputRows:
        """Scan a file. A column is None if it is not read; `vectors` are names or patterns of the vector's columns.

        Raises DataError for a missing file, an unknown suffix, content that does not match the suffix, and a missing
        column, with the nearest name.
        """
        schema, num_rows = scanned(location)
        named = {"text": text_column or "", "image": image_column or "", "task": task_column or ""}
        for part, column in named.items():
            if column and column not in schema.names:
                raise missing_column(column, f"--{part}-column", schema.names, str(location))
        table = FoundTable(location, str(location), location.name)
        columns = dict.fromkeys(("label", "id", "group", "split"), "") | named
        layout = TableLayout(table.where, columns, image_root=image_root)
        if vectors is not None and num_rows:
            own = [name for name in vectors if matching(schema.names, [name])]
            first = next(read_chunks(location))
            layout = replace(layout, vector=VectorColumns.found_in(first, own or [FEATURES], table.where))
        return cls(location, Normaliser(layout, table), schema, num_rows)

    def tables(self) -> Iterator[pa.Table]:
        """The rows in order, some thousand at a time, with the columns of `Normaliser.cells`.

        A row without an id gets its number, from 0. A row with too many fields gets a fault.
        """
        start = 0
        for chunk in read_chunks(self.location, lambda name: name == ID or self.normaliser.layout.wants(name)):
            rows = self.normaliser.cells(chunk)
            ids = pa.array(map(str, range(start, start + len(rows))), pa.string())
            if ID in chunk.table.schema.names:
                own = as_text(chunk.table[ID])
                ids = pc.if_else(pc.fill_null(pc.not_equal(own, ""), False), own, ids)
            columns = {"id": ids}
            if VECTOR in rows.column_names:
                lacks_one = pc.and_(rows[VECTOR].is_null(), pc.equal(rows["fault"], ""))
                columns["fault"] = pc.if_else(lacks_one, "no vector", rows["fault"])
                columns[VECTOR] = pc.fill_null(rows[VECTOR], [0.0] * rows[VECTOR].type.list_size)
            yield pa.table({name: columns.get(name, rows[name]) for name in rows.column_names})
            start += len(rows)

    def __str__(self) -> str:
        return str(self.location)


def changed(location: Location) -> DataError:
    """The error for a file that has lost or gained rows since it was scanned."""
    return DataError("the file has changed meanwhile", where=str(location), hint="Start again")


class InputReader:
    """Reads rows of files by number, starting where the last read ended: rows in order take one pass over a file."""

    def __init__(self) -> None:
        self._location: Location | None = None
        self._first = 0

    def __call__(self, source: InputRows, start: int, stop: int) -> Iterator[pa.Table]:
        """Rows `start` to `stop` with their pictures, as one table. DataError if the file has lost them."""
        if source.location != self._location or start < self._first:
            self._location, self._first = source.location, 0
            self._tables = source.tables()
            self._table = self._next_table(source)
        parts = []
        while True:
            end = self._first + len(self._table)
            if start < end or start == stop:
                first = max(start - self._first, 0)
                part = self._table.slice(first, min(stop, end) - self._first - first)
                parts.append(source.normaliser.pictured(part))
            if end >= stop:
                yield pa.concat_tables(parts)
                return
            self._first, self._table = end, self._next_table(source)

    def _next_table(self, source: InputRows) -> pa.Table:
        if (table := next(self._tables, None)) is None:
            raise changed(source.location)
        return table
