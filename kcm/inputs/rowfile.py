"""Files of rows (CSV, JSON lines, Parquet, by suffix), read a chunk at a time.

A chunk is an Arrow table with the columns of `CHUNK`, and `payload`: the row as it was read. The output is written from
payloads, so that no column is lost, renamed or converted.
"""

from __future__ import annotations

import difflib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from kcm.errors import DataError
from kcm.inputs.chunks import json_object, line_blocks, open_parquet, read_chunks, readable
from kcm.inputs.location import Location
from kcm.inputs.pictures import picture_of

CHUNK = {
    "id": pa.string(),  # of the column `id`, or else the position in the file, from 0
    "text": pa.string(),  # null where there is none
    "image": pa.large_binary(),  # a picture in the bytes of its file, null where there is none
    "task": pa.string(),
    "fault": pa.string(),  # why the row cannot be used, null where it can
}


class RowFile(ABC):
    """A file of rows that was scanned once: `schema` holds its columns, `num_rows` counts its rows."""

    schema: pa.Schema
    num_rows: int
    id_column: ClassVar[str] = "id"  # where a row's own id stands, if the file has one

    def __init__(
        self, location: Location, text_column: str | None, task_column: str | None, image_column: str | None
    ) -> None:
        self.location = location
        self.text_column, self.task_column = text_column, task_column
        self.image_column = image_column
        self.image_root = location.folder  # paths of pictures may not lead out of it

    @abstractmethod
    def chunks(self, size: int) -> Iterator[pa.Table]:
        """The rows in order, `size` at a time."""

    @abstractmethod
    def columns(self, payload: pa.ChunkedArray) -> pa.Table:
        """Payloads as a table of the file's columns."""

    def records(self, payload: pa.ChunkedArray) -> list[dict[str, Any]]:
        """Payloads as one dict per row."""
        records: list[dict[str, Any]] = self.columns(payload).to_pylist()
        return records

    def _chunk(
        self,
        start: int,
        *,
        ids: Sequence[str | None] | None,
        texts: Sequence[str | None] | None,
        images: Sequence[object] | None,
        tasks: Sequence[str | None] | None,
        faults: Sequence[str | None],
        payload: pa.Array,
    ) -> pa.Table:
        """A chunk whose first row is number `start`; a row without an id of its own is named by its number."""
        absent = [None] * len(faults)
        names = [row_id or str(start + number) for number, row_id in enumerate(ids or absent)]
        pictures = [picture_of(cell, self.location.folder, self.image_root) for cell in images or absent]
        columns = {
            "id": names,
            "text": texts or absent,
            "image": [picture for picture, _ in pictures],
            "task": tasks or absent,
            "fault": [fault or reason or None for fault, (_, reason) in zip(faults, pictures, strict=True)],
        }
        arrays = [pa.array(columns[name], kind) for name, kind in CHUNK.items()]
        return pa.table([*arrays, payload], names=[*CHUNK, "payload"])

    def _of_table(self, table: pa.Table, start: int, faults: Sequence[str | None]) -> pa.Table:
        """The chunk of a part of the file's table; `faults` go on beyond its rows."""

        def cells(column: str | None, kind: pa.DataType | None = None) -> list[Any] | None:
            if column not in table.schema.names:
                return None
            found: list[Any] = (table[column].cast(kind) if kind else table[column]).to_pylist()
            return found

        tasks = cells(self.task_column, pa.string())
        return self._chunk(
            start,
            ids=[_as_text(value) for value in cells(self.id_column) or ()],
            texts=cells(self.text_column, pa.string()),
            images=cells(self.image_column),
            tasks=tasks and [task or None for task in tasks],
            faults=faults[: len(table)],
            payload=pa.concat_arrays(table.to_struct_array().chunks),
        )

    def _require_columns(self) -> None:
        for column in filter(None, (self.text_column, self.task_column, self.image_column)):
            if column not in self.schema.names:
                nearest = difflib.get_close_matches(column, self.schema.names, n=1, cutoff=0.0)
                hint = f"Did you mean {nearest[0]!r}?" if nearest else "The file has no columns"
                raise DataError(f"no column {column!r}", where=str(self.location), hint=hint)


class CsvFile(RowFile):
    """Comma-separated values with a header; every value stays the string that it is."""

    def __init__(
        self, location: Location, text_column: str | None, task_column: str | None, image_column: str | None
    ) -> None:
        super().__init__(location, text_column, task_column, image_column)
        names: tuple[str, ...] = ()
        self.num_rows = 0
        for chunk in read_chunks(self.location, lambda name: False):
            names = chunk.names
            self.num_rows += chunk.num_rows
        self.schema = pa.schema([(name, pa.string()) for name in names])
        self._require_columns()

    def chunks(self, size: int) -> Iterator[pa.Table]:
        """The rows in order; one with too few or too many fields is at fault."""
        for whole in read_chunks(self.location):
            wrong = {**whole.faults, **whole.short}
            faults = [wrong.get(position) for position in range(whole.num_rows)]
            for start in range(0, whole.num_rows, size):
                yield self._of_table(whole.table.slice(start, size), whole.first - 1 + start, faults[start:])

    def columns(self, payload: pa.ChunkedArray) -> pa.Table:
        """The columns, all strings."""
        return pa.Table.from_struct_array(payload)


class JsonLinesFile(RowFile):
    """One JSON object a line; in a column, values of mixed types and nested ones become JSON text."""

    def __init__(
        self, location: Location, text_column: str | None, task_column: str | None, image_column: str | None
    ) -> None:
        super().__init__(location, text_column, task_column, image_column)
        types: dict[str, set[type]] = {}
        self.num_rows = 0
        for lines in self._blocks():
            self.num_rows += len(lines)
            for line in lines:
                for name, value in json_object(line)[0].items():
                    types.setdefault(name, set()).add(_value_type(value))
        self.schema = pa.schema([(name, _arrow_type(found - {type(None)})) for name, found in types.items()])
        self._require_columns()

    def chunks(self, size: int) -> Iterator[pa.Table]:
        """The rows in order; a line that is not a JSON object is at fault."""
        first = 0
        for block in self._blocks():
            for start in range(0, len(block), size):
                lines = block[start : start + size]
                records, faults = zip(*map(json_object, lines), strict=True)
                yield self._chunk(
                    first,
                    ids=[_as_text(record.get(self.id_column)) for record in records],
                    texts=[_string(record, self.text_column) for record in records],
                    images=[_string(record, self.image_column) for record in records] if self.image_column else None,
                    tasks=[_string(record, self.task_column) for record in records] if self.task_column else None,
                    faults=[fault or None for fault in faults],
                    payload=pa.array(lines, pa.string()),
                )
                first += len(lines)

    def columns(self, payload: pa.ChunkedArray) -> pa.Table:
        """The columns of the scanned schema; null where a row has no such key."""
        records = self.records(payload)
        return pa.table(
            [pa.array([_fitting(record.get(f.name), f.type) for record in records], f.type) for f in self.schema],
            schema=self.schema,
        )

    def records(self, payload: pa.ChunkedArray) -> list[dict[str, Any]]:
        """The objects as they came."""
        return [json_object(line)[0] for line in payload.to_pylist()]

    def _blocks(self) -> Iterator[list[str]]:
        with readable(self.location, (".jsonl",)):
            for block in line_blocks(self.location):
                yield [line for _, line in block]


class ParquetFile(RowFile):
    """A Parquet file; columns keep their types."""

    def __init__(
        self, location: Location, text_column: str | None, task_column: str | None, image_column: str | None
    ) -> None:
        super().__init__(location, text_column, task_column, image_column)
        with readable(self.location, (".parquet",)), open_parquet(self.location) as file:
            self.schema, self.num_rows = file.schema_arrow, file.metadata.num_rows
        self._require_columns()
        for column in filter(None, (text_column, task_column)):
            kind = self.schema.field(column).type
            value = kind.value_type if pa.types.is_dictionary(kind) else kind
            if not (pa.types.is_string(value) or pa.types.is_large_string(value)):
                raise DataError(f"column {column!r} holds {kind}, not text", where=str(location))

    def chunks(self, size: int) -> Iterator[pa.Table]:
        """The rows in order."""
        for whole in read_chunks(self.location):
            for start in range(0, whole.num_rows, size):
                part = whole.table.slice(start, size)
                yield self._of_table(part, whole.first - 1 + start, [None] * len(part))

    def columns(self, payload: pa.ChunkedArray) -> pa.Table:
        """The columns as they came."""
        return pa.Table.from_struct_array(payload).cast(self.schema)


FORMATS: dict[str, type[RowFile]] = {".csv": CsvFile, ".jsonl": JsonLinesFile, ".parquet": ParquetFile}


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
    kind = FORMATS[known_suffix(location, location.suffix)]
    rows = kind(location, text_column, task_column, image_column)
    rows.image_root = image_root or location.folder
    return rows


def known_suffix(location: Location, suffix: str) -> str:
    """The suffix of a file of rows; DataError naming the supported ones."""
    if suffix not in FORMATS:
        raise DataError(f"unknown suffix {suffix!r}", where=str(location), hint=f"Use one of {', '.join(FORMATS)}")
    return suffix


def _string(record: dict[str, Any] | None, column: str | None) -> str | None:
    value = record.get(column) if record and column else None
    return value if isinstance(value, str) and value == _encodable(value) else None


def _as_text(value: object) -> str | None:
    return None if value is None else _encodable(str(value))


def _encodable(text: str) -> str:
    """`text` without lone surrogates, which JSON can spell and UTF-8 cannot."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _value_type(value: Any) -> type:
    """The type of a value; an integer beyond 64 bits counts as text, which alone holds it exactly."""
    return str if isinstance(value, int) and not -(2**63) <= value < 2**63 else type(value)


def _arrow_type(values: set[type]) -> pa.DataType:
    """The one Arrow type that holds values of these Python types as they are; text where there is none."""
    for kind, arrow in ((bool, pa.bool_()), (int, pa.int64()), (float, pa.float64())):
        if values == {kind}:
            return arrow
    return pa.float64() if values == {int, float} else pa.string()


def _fitting(value: Any, kind: pa.DataType) -> Any:
    """`value` as it fits a column of `kind`: in a column of text, what is not text becomes its JSON."""
    if value is None or not pa.types.is_string(kind):
        return value
    return _encodable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
