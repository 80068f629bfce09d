"""The files of a prediction: which are read, which are written, and which are finished.

Each file of the input becomes a file with its answers. Hidden beside it lie a record, which says what it was made of,
and the blocks of rows that are answered, until it is finished:

    answers/2024/a.csv             the answers to rows/2024/a.csv
    answers/2024/.a.csv.kcm        its record
    answers/2024/.a.csv.blocks/    its blocks
"""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs
from pydantic import Field

from kcm.config import Config
from kcm.errors import ArtefactError, DataError
from kcm.inputs.chunks import SUFFIXES, known_suffix
from kcm.inputs.location import FoundFile, Location, naming_location, stem_of
from pipelines.batch.rowwriter import WRITTEN, drafted, make_folder, writable, written_suffix

RECORD = ".kcm"


class FileRecord(Config):
    """What an output was made of, and what it holds. `size` are its bytes, None until it is finished.

    `command` is a digest of model and settings, `stamp` says which content the source had; None: that is not known.
    `unfinished` counts the rows that the large model failed on, which the next attempt asks about again.
    """

    command: str
    source: str
    stamp: str | None = None
    size: int | None = None
    routes: dict[str, int] = Field(default_factory=dict)
    unfinished: int = 0


@dataclass(frozen=True)
class PredictedFile:
    """One file of the input, and the file of its answers."""

    source: Location
    target: Location

    @property
    def is_local(self) -> bool:
        """Whether some of it lies on this machine."""
        return self.source.is_local or self.target.is_local

    def finished(self, command: str, *, overwrite: bool) -> FileRecord | None:
        """The record of an output that a command need not make again; None for one that it has to make.

        Raises ArtefactError for a file that something else has written, unless `overwrite`.
        """
        with naming_location(self.target):
            there = self.target.file_system.get_file_info(self.target.path)
        if there.type == fs.FileType.NotFound:
            return None
        known = self._read() if there.type == fs.FileType.File else None
        # One that has another size was changed by somebody else since.
        if known is not None and (known.command != command or known.size not in (None, there.size)):
            known = None
        is_whole = known is not None and known.size is not None and not known.unfinished
        if known is not None and is_whole and known.stamp and known.stamp == self.source.stamp():
            return known
        is_own = known is not None and known.source == str(self.source)
        if is_own or (overwrite and there.type == fs.FileType.File):
            return None
        raise ArtefactError(
            "the output exists, and was not made of this input by this model with these settings",
            where=str(self.target),
            hint="Name another, or replace it by --overwrite",
        )

    def begin(self, command: str) -> None:
        """Note which command makes the output, so that it can go on; ArtefactError where nothing can be written."""
        make_folder(self.target.folder)
        self.write(FileRecord(command=command, source=str(self.source)))

    @property
    def blocks(self) -> Location:
        """The folder of the blocks of rows that are answered, until the file is finished."""
        return self.target.folder / f".{self.target.name}.blocks"

    def drop_blocks(self) -> None:
        """Remove the blocks, those of earlier attempts with other settings among them."""
        if self.blocks.kind() == fs.FileType.Directory:
            self.blocks.file_system.delete_dir(self.blocks.path)

    def write(self, record: FileRecord) -> None:
        """Replace the record."""
        with drafted(self._record) as draft, writable(self._record):
            draft.write_text(record.model_dump_json(), encoding="utf-8")

    @property
    def _record(self) -> Location:
        return self.target.folder / f".{self.target.name}{RECORD}"

    def _read(self) -> FileRecord | None:
        """The record; None where there is none, or it is of another version."""
        with naming_location(self._record):
            try:
                with self._record.file_system.open_input_stream(self._record.path, compression=None) as stream:
                    return FileRecord.model_validate_json(stream.read())
            except (FileNotFoundError, ValueError):
                return None


def predicted_files(source: str | Path, output: str | Path, suffix: str | None = None) -> list[PredictedFile]:
    """What is made of an input: `output` of a file; of a folder or pattern, an output for each of its files.

    The latter lie in the folder `output`, under the names of the input files, in the format of `suffix`, else in that
    of the input. Raises DataError for an input that is not there or is no file of rows, ArtefactError for an output
    that cannot be one.
    """
    origin, out = Location.of(source), Location.of(output)
    found = _files(origin)
    if found is None:
        written = written_suffix(out)
        if suffix not in (None, written):
            raise DataError(f"the output is to be {suffix}", where=str(out), hint="Its suffix says the format")
        known_suffix(origin, origin.suffix)
    kind = out.kind()
    if found is not None and (kind == fs.FileType.File or posixpath.splitext(out.name)[1] in SUFFIXES):
        raise ArtefactError("the answers to several files go to a folder", where=str(out), hint="Name a folder")
    if out.is_local and not Path(out.folder.path).is_dir():
        raise ArtefactError("no such folder", where=str(out.folder), hint="Create it first")
    if found is None and kind == fs.FileType.Directory:
        raise ArtefactError("the output is a folder", where=str(out), hint="Name a file: the input is one")
    files: dict[Location, PredictedFile] = {}
    for file in found or ():
        read = known_suffix(file.location, file.location.suffix)
        name = stem_of(file.relative) + (suffix or (read if read in WRITTEN else ".csv"))
        part = PredictedFile(file.location, out / name)
        if (other := files.setdefault(part.target, part)) is not part:
            raise DataError(f"{name} would hold the answers to two files", where=f"{other.source}, {part.source}")
    files = files or {out: PredictedFile(origin, out)}
    targets = {(target.store, _real(target)) for target in files}
    if any((file.source.store, _real(file.source)) in targets for file in files.values()):
        raise DataError("the output would replace the input", where=str(out), hint="Name another output")
    if found is not None and origin.store == out.store and f"{_real(out)}/".startswith(f"{_real(origin)}/"):
        raise DataError("the output lies in the input", where=str(out), hint="Name another output")
    return list(files.values())


def _files(origin: Location) -> list[FoundFile] | None:
    """The files that a folder or a pattern stands for; None for a file."""
    if origin.is_pattern:
        if found := origin.glob():
            return found
        raise DataError("no file matches the pattern", where=str(origin))
    kind = origin.kind()
    if kind == fs.FileType.NotFound:
        raise DataError("no such file", where=str(origin))
    if kind != fs.FileType.Directory:
        return None
    if found := [file for file in origin.files(recursive=True) if file.location.suffix in SUFFIXES]:
        return found
    raise DataError("the folder holds no file of rows", where=str(origin), hint=f"Use {', '.join(SUFFIXES)}")


def _real(location: Location) -> str:
    return os.path.realpath(location.path) if location.is_local else location.path
