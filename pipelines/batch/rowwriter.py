"""Writers of rows with their answers to CSV, JSON lines or Parquet, a chunk at a time; a file appears when complete."""

from __future__ import annotations

import csv
import json
import math
import posixpath
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from kcm.inputs.location import Location
from kcm.inputs.rowfile import RowFile, known_suffix
from pipelines.batch.drafts import drafted, writable


class RowWriter(ABC):
    """Writes the rows of `source` beside a table of answers with the columns `answers`.

    Every method raises ArtefactError where the operating system refuses.
    """

    def __init__(self, path: Path, target: Location, source: RowFile, answers: pa.Schema) -> None:
        self.path, self.target, self.source = path, target, source  # `target` is what the file will be
        self.schema = pa.schema([*source.schema, *answers])
        with writable(target):
            self._open()

    def write(self, payload: pa.ChunkedArray, answers: pa.Table) -> None:
        """Append rows: their payloads as `source` read them, and their answers."""
        with writable(self.target):
            self._append(payload, answers)

    def close(self) -> None:
        """Finish the file."""
        with writable(self.target):
            self._close()

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def _append(self, payload: pa.ChunkedArray, answers: pa.Table) -> None: ...

    @abstractmethod
    def _close(self) -> None: ...


class CsvWriter(RowWriter):
    """Comma-separated values; null is an empty field, nested values are JSON."""

    def _open(self) -> None:
        self._file: IO[str] = self.path.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerow(self.schema.names)

    def _append(self, payload: pa.ChunkedArray, answers: pa.Table) -> None:
        columns = [*self.source.columns(payload).columns, *answers.columns]
        self._writer.writerows(zip(*([_field(v) for v in c.to_pylist()] for c in columns), strict=True))

    def _close(self) -> None:
        self._file.close()


class JsonLinesWriter(RowWriter):
    """One JSON object a line."""

    def _open(self) -> None:
        self._file: IO[str] = self.path.open("w", encoding="utf-8")

    def _append(self, payload: pa.ChunkedArray, answers: pa.Table) -> None:
        for record, answer in zip(self.source.records(payload), answers.to_pylist(), strict=True):
            self._file.write(_json(record | answer) + "\n")

    def _close(self) -> None:
        self._file.close()


class ParquetWriter(RowWriter):
    """Parquet with the source's column types."""

    def _open(self) -> None:
        self._writer = pq.ParquetWriter(self.path, self.schema)

    def _append(self, payload: pa.ChunkedArray, answers: pa.Table) -> None:
        columns = [*self.source.columns(payload).columns, *answers.columns]
        self._writer.write_table(pa.table(columns, schema=self.schema))

    def _close(self) -> None:
        self._writer.close()


WRITERS: dict[str, type[RowWriter]] = {".csv": CsvWriter, ".jsonl": JsonLinesWriter, ".parquet": ParquetWriter}


@contextmanager
def writing(target: Location, source: RowFile, answers: pa.Schema) -> Iterator[RowWriter]:
    """A writer within the block; the file is there after a normal end, and else as it was.

    Raises ArtefactError where nothing can be written, and DataError for an unknown suffix.
    """
    kind = WRITERS[written_suffix(target)]
    with drafted(target) as draft:
        writer = kind(draft, target, source, answers)
        try:
            yield writer
        finally:
            writer.close()


def written_suffix(target: Location) -> str:
    """The suffix that says how a file is written; DataError naming the supported ones."""
    return known_suffix(target, posixpath.splitext(target.name)[1], tuple(WRITERS))


def _field(value: Any) -> Any:
    return _json(value) if isinstance(value, dict | list) else value


def _json(value: Any) -> str:
    return json.dumps(_plain(value), default=str, allow_nan=False)


def _plain(value: Any) -> Any:
    """`value` without NaN and infinity, which JSON lacks."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(child) for key, child in value.items()}
    return [_plain(child) for child in value] if isinstance(value, list) else value
