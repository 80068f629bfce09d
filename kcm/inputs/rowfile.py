"""A file of rows to be answered, read a chunk at a time, with every row as it came, so that no column is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from kcm.inputs.cells import as_text, chat_texts, has_chats, written
from kcm.inputs.chunks import Chunk, open_parquet, read_chunks, readable
from kcm.inputs.location import Location
from kcm.inputs.pictures import picture_of
from kcm.inputs.tables import missing_column

CHUNK = {
    "id": pa.string(),  # of the column `id`, or else the position in the file, from 0
    "text": pa.string(),  # null where there is none
    "task": pa.string(),
    "fault": pa.string(),  # why the row cannot be used, null where it can
}


class RowFile:
    """A file of rows that was scanned once: `schema` holds its columns, `num_rows` counts its rows.

    Its chunks have the columns of `CHUNK`, and `payload`: the row as it came, which is a struct, or JSON.
    """

    id_column: ClassVar[str] = "id"  # where a row's own id stands, if the file has one

    def __init__(
        self,
        location: Location,
        text_column: str | None,
        task_column: str | None,
        image_column: str | None,
        image_root: Location,
    ) -> None:
        self.location, self.image_root = location, image_root
        self.text_column, self.task_column, self.image_column = text_column, task_column, image_column
        self.num_rows = 0
        self._is_json = False
        self.schema = self._scanned()
        for name, column in (("text", text_column), ("task", task_column), ("image", image_column)):
            if column and column not in self.schema.names:
                raise missing_column(column, name, self.schema.names, str(location))

    def _scanned(self) -> pa.Schema:
        if self.location.suffix == ".parquet":
            with readable(self.location), open_parquet(self.location) as file:
                self.num_rows = file.metadata.num_rows
                return file.schema_arrow
        schema = pa.schema([])
        types: dict[str, set[type]] = {}
        for chunk in read_chunks(self.location):
            self.num_rows += chunk.num_rows
            self._is_json = chunk.objects is not None
            schema = chunk.table.schema
            for name, value in (pair for row in chunk.objects or () for pair in row.items()):
                types.setdefault(name, set()).add(_value_type(value))
        return pa.schema([(name, _arrow_type(kinds)) for name, kinds in types.items()]) if self._is_json else schema

    def chunks(self, size: int) -> Iterator[pa.Table]:
        """The rows in order, `size` at a time; one with too few or too many fields is at fault."""
        before = 0
        for chunk in read_chunks(self.location):
            faults = {**chunk.faults, **chunk.short}
            for start in range(0, chunk.num_rows, size):
                rows = range(start, min(start + size, chunk.num_rows))
                yield self._rows(chunk, rows, before + start, [faults.get(row) for row in rows])
            before += chunk.num_rows

    def _rows(self, chunk: Chunk, rows: range, start: int, faults: Sequence[str | None]) -> pa.Table:
        """Some rows of a chunk; a row without an id of its own is named by its number, the first by `start`."""
        table = chunk.table.slice(rows.start, len(rows))
        columns = {name: table[name] for name in table.schema.names}
        nulls = pa.chunked_array([pa.nulls(len(rows), pa.string())])
        ids = as_text(columns.get(self.id_column, nulls))
        names = [name or str(number) for number, name in enumerate(ids.to_pylist(), start)]
        tasks = as_text(columns.get(self.task_column or "", nulls))
        texts = columns.get(self.text_column or "", nulls)
        values = {
            "id": names,
            "text": chat_texts(texts, "user") if has_chats(texts) else as_text(texts),
            "task": pc.if_else(pc.equal(tasks, ""), None, tasks),
            "fault": faults,
        }
        arrays = [pa.array(values[name], kind) for name, kind in CHUNK.items()]
        return pa.table([*arrays, self._payload(chunk, rows, table)], names=[*CHUNK, "payload"])

    def _payload(self, chunk: Chunk, rows: range, table: pa.Table) -> pa.Array:
        if chunk.objects is not None:
            return pa.array([json.dumps(chunk.objects[row]) for row in rows], pa.string())
        return pa.concat_arrays(table.to_struct_array().chunks)

    def columns(self, payload: pa.ChunkedArray) -> pa.Table:
        """Payloads as a table of `schema`; null where a JSON object has no such key."""
        if not self._is_json:
            return pa.Table.from_struct_array(payload).cast(self.schema)
        rows = self.records(payload)
        return pa.table(
            [
                pa.array([_fitting(row.get(field.name), field.type) for row in rows], field.type)
                for field in self.schema
            ],
            schema=self.schema,
        )

    def pictures(self, payload: pa.ChunkedArray) -> list[tuple[bytes | None, str]]:
        """The picture of each row, read from its file where it is a path; None where there is none, and why."""
        if not self.image_column:
            return [(None, "")] * len(payload)
        if self._is_json:
            cells = [record.get(self.image_column) for record in self.records(payload)]
        else:
            cells = self.columns(payload)[self.image_column].to_pylist()
        return [picture_of(cell, self.location.folder, self.image_root) for cell in cells]

    def records(self, payload: pa.ChunkedArray) -> list[dict[str, Any]]:
        """Payloads as one dict per row, as they came."""
        if self._is_json:
            return [json.loads(row) for row in payload.to_pylist()]
        records: list[dict[str, Any]] = self.columns(payload).to_pylist()
        return records


def open_rows(
    where: Location | Path,
    text_column: str | None,
    task_column: str | None = None,
    image_column: str | None = None,
    *,
    image_root: Location | None = None,
) -> RowFile:
    """Scan a file of rows. Paths of pictures must lead below `image_root`, the file's own folder without one.

    Raises DataError for a missing file, an unknown suffix, a file that is not what its suffix says, and a missing
    column, naming the nearest one.
    """
    location = where if isinstance(where, Location) else Location.of(where)
    return RowFile(location, text_column, task_column, image_column, image_root or location.folder)


def _value_type(value: object) -> type:
    """The type of a value; an integer beyond 64 bits counts as text, which alone holds it exactly."""
    return str if isinstance(value, int) and not -(2**63) <= value < 2**63 else type(value)


def _arrow_type(kinds: set[type]) -> pa.DataType:
    """The Arrow type that holds values of all these Python types; text where there is no other."""
    kinds = kinds - {type(None)}
    for kind, arrow in ((bool, pa.bool_()), (int, pa.int64()), (float, pa.float64())):
        if kinds == {kind}:
            return arrow
    return pa.float64() if kinds == {int, float} else pa.string()


def _fitting(value: Any, kind: pa.DataType) -> Any:
    """`value` as it fits a column of `kind`: in a column of text, any other value is written as text."""
    return written(value) if pa.types.is_string(kind) else value
