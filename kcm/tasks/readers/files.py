"""Labelled rows from every kind of file that `kcm.inputs.chunks` reads: one file, a folder, a pattern, or a list."""

from __future__ import annotations

import posixpath
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

import pyarrow as pa
from pyarrow import fs
from pydantic import Field

from kcm.config import LocalPath
from kcm.errors import DataError
from kcm.inputs.chunks import SUFFIXES, Chunk
from kcm.inputs.location import FoundFile, Location, stem_of
from kcm.inputs.textfile import UNKNOWN_FORMAT, TextFormat
from kcm.tasks.readers.columns import ColumnsConfig, FoundTable, Normaliser, TableLayout
from kcm.tasks.sources import Shard, Source, SourceConfig

_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}
_SPLIT = re.compile(rf"({'|'.join(_SPLITS)})([-_.]\d[\w.-]*)?", re.IGNORECASE)  # train, train-00001-of-00005
_PART = re.compile(r"part[-_]?\d[\w.-]*", re.IGNORECASE)
_SHOWN = 5  # number of files listed in a message


class TableSourceConfig(SourceConfig, ColumnsConfig):
    """A source of tables whose columns may be unknown, as in `kcm init`."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The source's name."""

    @abstractmethod
    def tables(self, assets_dir: Path) -> list[FoundTable]:
        """The files with the rows, in order. Raises the errors of `build`."""

    def build(self, assets_dir: Path, vectors: Sequence[str] = ()) -> Source:
        tables = self.tables(assets_dir)
        layout = layout_of(tables, self, vectors)
        shards = [FileShard(table.where, table, layout, table.size) for table in tables]
        return Source(self.name, tuple(shards), self.labels, self.out_of_scope_label)

    def chunks(self, assets_dir: Path) -> Iterator[Chunk]:
        """The unchanged rows, a bounded number at a time; one empty chunk if there are none."""
        return (chunk for table in self.tables(assets_dir) for chunk in table.chunks())


class FilesSource(TableSourceConfig):
    """A file, a folder, a pattern such as rows/*.parquet, a list of them, or one for each task; local, s3:// or gs://.

    In a folder, the files named after splits are read (train.csv, test-00001.csv, or all files in a folder train); if
    there are none, all files.
    """

    opens_quickly: ClassVar[bool] = True

    path: Annotated[str | tuple[str, ...] | dict[str, str], LocalPath] = Field(
        description="CSV, TSV, JSON, JSON lines, Parquet or Excel file, a folder, a pattern, or a list; local, "
        "s3:// or gs://. Or one of these for each task, in their order: {first: a.csv, second: b.csv}."
    )
    delimiter: str | None = Field(
        default=None, min_length=1, max_length=1, description="Delimiter of CSV files; null: detected from the header."
    )
    encoding: str | None = Field(
        default=None, description="Encoding of text files, such as cp1252; null: detected from the first bytes."
    )

    @property
    def paths(self) -> tuple[str, ...]:
        """Files, folders and patterns."""
        if isinstance(self.path, dict):
            return tuple(self.path.values())
        return (self.path,) if isinstance(self.path, str) else self.path

    def next_table(self, table: str) -> SourceConfig:
        """The same columns in another file or folder."""
        return self.model_copy(update={"path": table})

    def tables(self, assets_dir: Path) -> list[FoundTable]:
        """The files with the rows, in order. Raises the errors of `build`."""
        return find_tables(self.path, TextFormat(self.delimiter, self.encoding))

    @property
    def name(self) -> str:
        """The source's name: its file or folder, the folder before a pattern, or the first of several."""
        location = Location.of(
            self.path
            if isinstance(self.path, str)
            else next(iter(self.path.values() if isinstance(self.path, dict) else self.path))
        )
        return Path((location.fixed if location.is_pattern else location).path).stem


@dataclass(frozen=True)
class FileShard(Shard):
    """A file."""

    where: str
    table: FoundTable
    layout: TableLayout
    num_bytes: int = 0

    def read(self) -> Iterator[pa.Table]:
        """The rows of the file."""
        for chunk in self.table.chunks(self.layout.wants):
            if chunk.all_names:
                self.layout.check_names(chunk.names, self.table)
            yield from Normaliser(self.layout, self.table).rows(chunk)

    def stamp(self) -> str | None:
        """The stamp of the file and its path; None if pictures are in files of their own."""
        if self.layout.columns["image"]:
            return None
        table, stamp = self.table, self.table.location.stamp()
        return stamp and f"{table.stem} {table.task} {table.split} {table.text_format} {stamp}"


def layout_of(tables: Sequence[FoundTable], config: ColumnsConfig, vectors: Sequence[str]) -> TableLayout:
    """The layout of the tables, from the first rows of the first table with rows; DataError if no table has rows."""
    for table in tables:
        for chunk in table.chunks():
            if chunk.num_rows:
                return TableLayout.found_in(chunk, table, config, vectors)
    raise DataError("the file holds no rows", where=tables[0].where)


def find_tables(
    paths: str | Sequence[str] | Mapping[str, str], text_format: TextFormat = UNKNOWN_FORMAT
) -> list[FoundTable]:
    """The files that match paths of files, folders and patterns; a mapping names the task of each path.

    Raises DataError if a path matches none.
    """
    if isinstance(paths, Mapping):
        tables = {task: find_tables(path, text_format) for task, path in paths.items()}
        return [
            replace(table, task=task, stem=task if len(of_task) == 1 else f"{task}/{table.stem}")
            for task, of_task in tables.items()
            for table in of_task
        ]
    if isinstance(paths, str):
        location = Location.of(paths)
        files, where = _files(paths), paths if location.is_local else str(location)
        return [_table(file, where, text_format) for file in files]
    files = [file for path in paths for file in _files(path)]
    if not files:
        raise DataError("the list of files is empty", where="source.path", hint="Name at least one file")
    if len({file.location.is_local for file in files}) > 1:
        raise DataError("the list names files here and in a store", where="source.path", hint="Copy them to one place")
    common = posixpath.commonpath([file.location.folder.path for file in files])
    relative = [replace(file, relative=posixpath.relpath(file.location.path, common)) for file in files]
    return [_table(file, str(file.location.folder), text_format) for file in relative]


def tables_by_task(paths: Sequence[str]) -> dict[str, str]:
    """Several tables as tasks: from the name of each file, without suffix, to its path, in order; empty for one table.

    The files of a folder are tasks too, unless their names are splits or parts of one table (part-00001.parquet).
    Raises DataError for two files of the same name.
    """
    if len(paths) == 1:
        folder = Location.of(paths[0])
        if folder.is_pattern or folder.kind() != fs.FileType.Directory:
            return {}
        tables = find_tables(paths[0])
        if any(table.split or _PART.fullmatch(table.stem) for table in tables):
            return {}
        head, mark, options = paths[0].partition("?")
        files = [posixpath.relpath(table.location.path, folder.path) for table in tables]
        paths = [f"{head.rstrip('/')}/{file}{mark}{options}" for file in files]
    names = [posixpath.basename(stem_of(path.partition("?")[0])) for path in paths]
    if len(set(names)) < len(names):
        hint = "Rename them: a task has the name of its file"
        raise DataError(f"two files have the same name among {', '.join(names)}", where="source.path", hint=hint)
    return dict(zip(names, paths, strict=True)) if len(names) > 1 else {}


def _table(file: FoundFile, where: str, text_format: TextFormat) -> FoundTable:
    parts = stem_of(file.relative).split("/")
    splits = [match[1].lower() for part in parts if (match := _SPLIT.fullmatch(part))]
    return FoundTable(
        file.location,
        where if where.endswith(file.relative) else f"{where}: {file.relative}",
        "/".join(parts),
        _SPLITS[splits[0]] if splits else "",
        file.size,
        text_format,
    )


def _files(path: str) -> list[FoundFile]:
    location = Location.of(path)
    if location.is_pattern:
        if files := location.glob():
            return files
        raise DataError("no file matches the pattern", where=path)
    kind = location.kind()
    if kind == fs.FileType.Directory:
        return _files_of_folder(location)
    if kind == fs.FileType.NotFound:
        raise DataError(f"no such file {path!r}", where="source.path")
    return [FoundFile(location, location.name, location.size())]


def _files_of_folder(folder: Location) -> list[FoundFile]:
    """The files named after splits, files directly in the folder first; if there are none, all files."""
    for recursive in (False, True):
        files = [file for file in folder.files(recursive=recursive) if file.location.suffix in SUFFIXES]
        if split_files := [file for file in files if any(map(_SPLIT.fullmatch, stem_of(file.relative).split("/")))]:
            return split_files
    kinds = sorted({file.location.suffix for file in files})
    if len(kinds) > 1:
        raise DataError(
            f"the folder holds files of several kinds, {', '.join(kinds)}, and none named after a split",
            where=str(folder),
            hint=f"Name them train.csv, test.csv, …, or give a pattern such as {folder}/*{kinds[0]}",
        )
    if not files:
        raise DataError("the folder holds no data file", where=str(folder), hint=f"Use {', '.join(SUFFIXES)}")
    return files


def ignored_note(path: str) -> Iterator[str]:
    """A line on unread files of rows in a folder, which exist because other files are named after splits."""
    location = Location.of(path)
    if location.is_pattern or location.kind() != fs.FileType.Directory:
        return
    data_files = [file.relative for file in _files_of_folder(location)]
    ignored = [file.relative for file in location.files(recursive=True) if file.location.suffix in SUFFIXES]
    ignored = [relative for relative in ignored if relative not in data_files]
    if ignored:
        listings = [
            ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "") for names in (data_files, ignored)
        ]
        yield (
            f"warning: {path}: {listings[0]} {'is' if len(data_files) == 1 else 'are'} read, named after a split;"
            f" ignored: {listings[1]} ({len(ignored):,} files)"
        )
