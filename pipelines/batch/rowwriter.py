"""Writers of rows with their answers to CSV, JSON lines or Parquet, here or in a store; a file is whole or absent."""

from __future__ import annotations

import errno
import glob
import json
import math
import posixpath
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv, fs

from kcm.durable import replace_durably
from kcm.errors import ArtefactError
from kcm.inputs.chunks import known_suffix
from kcm.inputs.location import Location, fault_of
from kcm.inputs.rowfile import RowFile

WRITTEN = (".csv", ".jsonl", ".parquet")


@contextmanager
def writing(
    target: Location, source: RowFile, answers: pa.Schema
) -> Iterator[Callable[[pa.ChunkedArray, pa.Table], None]]:
    """A function within the block that appends rows: payloads as `source` read them, and a table of answers.

    The file is there after a normal end of the block, and else as it was. Raises ArtefactError where nothing can be
    written, and DataError for an unknown suffix.
    """
    schema = pa.schema([*source.schema, *answers])
    suffix = written_suffix(target)
    if suffix == ".csv":
        schema = pa.schema([(field.name, field.type if _is_plain(field.type) else pa.string()) for field in schema])
    with drafted(target) as draft, ExitStack() as stack:
        with writable(target):
            writer = _opened(draft, suffix, schema, stack)

        def write(payload: pa.ChunkedArray, answer_rows: pa.Table) -> None:
            with writable(target):
                if suffix == ".jsonl":
                    for record, answer in zip(source.records(payload), answer_rows.to_pylist(), strict=True):
                        writer.write((_json(record | answer) + "\n").encode())
                    return
                columns = [*source.columns(payload).columns, *answer_rows.columns]
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


@contextmanager
def drafted(target: Location) -> Iterator[Path]:
    """A path to write to within the block; at its normal end the file is renamed to `target`, or uploaded, else gone.

    Raises ArtefactError where it cannot be put there.
    """
    if target.is_local:
        with _beside(Path(target.path)) as draft:
            yield draft
        return
    with tempfile.TemporaryDirectory(prefix="kcm-") as folder:
        yield (draft := Path(folder, target.name))
        # A stream that an error ends is closed all the same, which puts half an object in place: upload what is whole.
        with writable(target):
            fs.copy_files(
                str(draft),
                target.path,
                source_filesystem=fs.LocalFileSystem(),
                destination_filesystem=target.file_system,
            )


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.draft")
    try:
        yield draft
        with writable(Location.of(path)):
            replace_durably(draft, path)
        for left in path.parent.glob(f".{glob.escape(path.name)}.{'?' * 32}.draft"):  # by processes that were killed
            left.unlink(missing_ok=True)
    finally:
        with suppress(OSError):  # what kept the file from being written may keep its draft from being found
            draft.unlink(missing_ok=True)


def make_folder(folder: Location) -> None:
    """Make a folder, where folders are more than the beginnings of names. ArtefactError where that is not possible."""
    if folder.is_local:
        with writable(folder):
            Path(folder.path).mkdir(parents=True, exist_ok=True)


@contextmanager
def writable(target: Location) -> Iterator[None]:
    """A block that writes `target`; what the system raises becomes an ArtefactError of one line that names it."""
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError) and target.is_local:
            raise ArtefactError("no such folder", where=str(target.folder), hint="Create it first") from error
        if error.errno == errno.ENOSPC:
            raise ArtefactError("the disk is full", where=str(target), hint="Free some space") from error
        what, hint = fault_of(error, target, "write")
        raise ArtefactError(what, where=str(target), hint=hint or "Choose another output") from error
