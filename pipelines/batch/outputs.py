"""The files of a prediction: which files are read, written, and finished.

Each file of the input becomes a file with its answers. A hidden folder holds a record of each output, with the inputs
from which it was made, and until it is finished the answered units of rows:

    answers/2024/a.csv                     the answers to rows/2024/a.csv
    answers/.kcm/files/2024/a.csv.json     its record
    answers/.kcm/units/                    units

For a single file answers.csv the hidden folder is .answers.csv.kcm next to it.
"""

from __future__ import annotations

import json
import math
import os
import posixpath
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv, fs

from kcm.config import Config
from kcm.errors import ArtefactError, ConfigError, DataError
from kcm.inputs.cell_text import guarded, is_text, whole, with_formulas
from kcm.inputs.chunks import SUFFIXES, Chunk, known_suffix
from kcm.inputs.location import FoundFile, Location, stem_of
from kcm.inputs.tables import fitted
from kcm.local_files import replace_durably, require_writable
from pipelines.store.artefact import storage_errors
from pipelines.store.storage import Storage

HIDDEN = ".kcm"
WRITTEN = (".csv", ".jsonl", ".parquet")


class FileRecord(Config):
    """The inputs and the content of an output; `size` are its bytes.

    `command` is a digest of model and settings. `stamp` identifies the content of the source; None if it is unknown.
    `unfinished` counts the rows on which the large model failed; the next attempt retries them. `fault` is the most
    frequent reason among those that the small model answered.
    """

    command: str
    source: str
    stamp: str | None
    size: int
    routes: dict[str, int]
    unfinished: int
    fault: str | None = None


@dataclass(frozen=True)
class PredictedFile:
    """One file of the input, and the file of its answers in this node's folder for a storage."""

    source: Location
    target: Path
    storage: Storage
    hidden: Path

    def finished(self, command: str, *, overwrite: bool) -> FileRecord | None:
        """The record of an output that is up to date; None if it has to be written.

        Raises ArtefactError for a file that another program or command has written, unless `overwrite`.
        """
        try:
            size = self.storage.files.size(self.storage.name(self.target))
        except FileNotFoundError:
            return None
        known = self._read()
        if known is not None and (known.command, known.size) == (command, size):  # and not changed by somebody since
            if known.stamp and known.stamp == self.source.stamp() and not known.unfinished:
                return known
            if known.source == str(self.source):
                return None
        if overwrite:
            return None
        raise ArtefactError(
            "the output exists, and was not made of this input by this model with these settings",
            where=self.storage.where(self.target),
            hint="Name another, or replace it by --overwrite",
        )

    @contextmanager
    def drafted(self, folder: Path) -> Iterator[Path]:
        """A path below `folder` to write to; it becomes the output if the block ends without an error."""
        draft = folder / uuid.uuid4().hex
        with storage_errors(self.target):
            for parent in (folder, self.target.parent):
                parent.mkdir(parents=True, exist_ok=True)
            try:
                yield draft
                replace_durably(draft, self.target)
            finally:
                draft.unlink(missing_ok=True)
            self.storage.hand_over(self.target)

    def write(self, record: FileRecord) -> None:
        """Replace the record."""
        self.storage.files.write(self._record, record.model_dump_json().encode())

    @property
    def _record(self) -> str:
        return f"{self.storage.name(self.hidden)}/files/{self.storage.name(self.target)}.json"

    def _read(self) -> FileRecord | None:
        """The record; None if there is none, or it has another version."""
        try:
            return FileRecord.model_validate_json(self.storage.files.read(self._record))
        except (FileNotFoundError, ValueError):
            return None


def predicted_files(source: str | Path, output: str | Path, suffix: str | None = None) -> list[PredictedFile]:
    """The outputs of an input: the file `output` for a file; for a folder or pattern, an output for each of its files.

    Several outputs are in the folder `output`, under the names of the input files, in the format of `suffix` or by
    default of the input. Raises DataError for a missing input and for a file that holds no rows, ArtefactError for an
    unusable output.
    """
    origin, out = Location.of(source), Location.of(output)
    if "?" in out.store:
        hint = "Set AWS_ENDPOINT_URL and AWS_REGION in the environment"
        raise DataError("the URI of an output has no options", where=str(output), hint=hint)
    inputs = _files(origin)
    if inputs is None:
        written = known_suffix(out, posixpath.splitext(out.name)[1], WRITTEN)
        if suffix not in (None, written):
            raise DataError(f"the output is to be {suffix}", where=str(out), hint="Its suffix says the format")
        known_suffix(origin, origin.suffix)
    kind = out.kind()
    if inputs is not None and (kind == fs.FileType.File or posixpath.splitext(out.name)[1] in SUFFIXES):
        raise ArtefactError("the answers to several files go to a folder", where=str(out), hint="Name a folder")
    if out.is_local and not Path(out.folder.path).is_dir():
        raise ArtefactError("no such folder", where=str(out.folder), hint="Create it first")
    if inputs is None and kind == fs.FileType.Directory:
        raise ArtefactError("the output is a folder", where=str(out), hint="Name a file: the input is one")
    if out.is_local:
        require_writable(Path(out.folder.path if inputs is None else out.path), "Name another output")
    names: dict[str, Location] = {}
    for file in inputs or ():
        read = known_suffix(file.location, file.location.suffix)
        name = stem_of(file.relative) + (suffix or (read if read in WRITTEN else ".csv"))
        if (other := names.setdefault(name, file.location)) is not file.location:
            raise DataError(f"{name} would hold the answers to two files", where=f"{other}, {file.location}")
    names, folder = (names, out) if names else ({out.name: origin}, out.folder)
    targets = {_real(folder / name) for name in names}
    if any(_real(source) in targets for source in names.values()):
        raise DataError("the output would replace the input", where=str(out), hint="Name another output")
    if inputs is not None and f"{_real(out)}/".startswith(f"{_real(origin)}/"):
        raise DataError("the output lies in the input", where=str(out), hint="Name another output")
    try:
        storage = Storage.at(str(folder))
    except ValueError as error:
        raise ConfigError(str(error), where=str(output)) from None
    hidden = storage.root / (HIDDEN if inputs is not None else f".{out.name}{HIDDEN}")
    return [PredictedFile(source, storage.root / name, storage, hidden) for name, source in names.items()]


def _files(origin: Location) -> list[FoundFile] | None:
    """The files of a folder or a pattern; None for a single file."""
    if origin.is_pattern:
        if files := origin.glob():
            return files
        raise DataError("no file matches the pattern", where=str(origin))
    kind = origin.kind()
    if kind == fs.FileType.NotFound:
        raise DataError("no such file", where=str(origin))
    if kind != fs.FileType.Directory:
        return None
    if files := [file for file in origin.files(recursive=True) if file.location.suffix in SUFFIXES]:
        return files
    raise DataError("the folder holds no file of rows", where=str(origin), hint=f"Use {', '.join(SUFFIXES)}")


def _real(location: Location) -> str:
    return os.path.realpath(location.path) if location.is_local else str(location)


@contextmanager
def writing(
    path: Path, suffix: str, source: pa.Schema, answers: pa.Schema
) -> Iterator[Callable[[Chunk, pa.Table], None]]:
    """A function within the block that appends rows to a file: a chunk of the input, and a table of answers to it."""
    schema = pa.schema([*source, *answers])
    if suffix == ".csv":
        fields = ((guarded(field.name), field.type if _is_plain(field.type) else pa.string()) for field in schema)
        schema = pa.schema(list(fields))
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
                columns = [_plain_column(column) for column in columns]
            writer.write_table(pa.table(columns, schema=schema))

        yield write


def _opened(path: Path, suffix: str, schema: pa.Schema, stack: ExitStack) -> Any:
    if suffix == ".jsonl":
        return stack.enter_context(path.open("wb"))
    if suffix == ".parquet":
        return stack.enter_context(pq.ParquetWriter(path, schema))
    return stack.enter_context(csv.CSVWriter(path, schema))


def _is_plain(kind: pa.DataType) -> bool:
    """Whether Arrow writes values of this type to CSV in the usual form."""
    return bool(pa.types.is_primitive(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    """A column for CSV: nested values become JSON, other values that Arrow cannot write become text, no formulas."""
    if is_text(column.type):
        return with_formulas(whole(column), guarded)
    if _is_plain(column.type):
        return column
    values = (_json(value) if isinstance(value, dict | list) else value for value in column.to_pylist())
    texts = pa.array([None if value is None else str(value) for value in values], pa.string())
    return with_formulas(texts, guarded)


def _json(value: Any) -> str:
    return json.dumps(_finite(value), default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    """`value` without NaN and infinity, which JSON lacks."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(child) for key, child in value.items()}
    return [_finite(child) for child in value] if isinstance(value, list) else value
