"""Labelled rows from files: CSV, TSV, JSON, JSON lines, Parquet; one, a folder, a pattern, or a list of them."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar
from urllib.parse import unquote

import pyarrow as pa
from pyarrow import fs
from pydantic import Field

from kcm.errors import DataError
from kcm.inputs.chunks import (
    SUFFIXES,
    Chunk,
    Wanted,
    columns_of,
    open_parquet,
    parquet_chunks,
    read_chunks,
    readable,
)
from kcm.inputs.location import FoundFile, Location, stem_of
from kcm.paths import LocalPath
from kcm.tasks.readers.columns import ColumnsConfig, Layout, Normaliser, Place
from kcm.tasks.sources import Shard, Source, SourceConfig

_KINDS = (*SUFFIXES, ".json")
_CLINC_OUT_OF_SCOPE = "oos"  # CLINC150's data_full.json: {"train": [[text, intent], …], "oos_train": […], …}
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}
_SPLIT = re.compile(rf"({'|'.join(_SPLITS)})([-_.]\d[\w.-]*)?", re.IGNORECASE)  # train, train-00001-of-00005
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
SHARD_BYTES = 256 << 20  # of a Parquet file, beyond which its row groups become several shards


class FilesSource(SourceConfig, ColumnsConfig):
    """A file, a folder, a pattern such as rows/*.parquet, or a list of them; here, or at s3:// or gs://.

    In a folder, the files named after splits are read (train.csv, test-00001.csv, or all in a folder train); where
    there are none, all files. Parts KEY=VALUE of a path below it are columns. A JSON file holds a list of objects, or
    a mapping from split to a list of objects or of [text, label] pairs (CLINC150's own layout).
    """

    opens_quickly: ClassVar[bool] = True

    path: Annotated[str | tuple[str, ...], LocalPath] = Field(
        description="CSV, TSV, JSON, JSONL or Parquet file, a folder, a pattern, or a list; local, s3:// or gs://."
    )

    def build(self, assets_dir: Path, vectors: Sequence[str] = ()) -> Source:
        tables = find_tables(self.path)
        first = _First.of(tables, self)
        layout = Layout.found_in(first.chunk, first.place, self, vectors)
        shards = [shard for table in tables for shard in table.shards(layout, self)]
        out_of_scope = self.out_of_scope_label or (_CLINC_OUT_OF_SCOPE if first.is_clinc else None)
        return Source(self.name, tuple(shards), self.labels, out_of_scope)

    @property
    def name(self) -> str:
        """What the source is called: its file or folder; the folder before a pattern; of a list, the first."""
        location = Location.of(self.path if isinstance(self.path, str) else self.path[0])
        return Path((location.fixed if location.is_pattern else location).path).stem


@dataclass(frozen=True)
class FoundTable:
    """A file of a source, and its place among the others."""

    location: Location
    place: Place
    size: int

    def chunks(self, config: ColumnsConfig, wanted: Wanted = lambda name: True) -> Iterator[tuple[Place, Chunk]]:
        """The rows as they are, a bounded number at a time; those of a JSON file all together."""
        if self.location.suffix == ".json":
            return _json_chunks(self, config)
        return ((self.place, chunk) for chunk in read_chunks(self.location, wanted))

    def shards(self, layout: Layout, config: ColumnsConfig) -> list[Shard]:
        """The file as one shard, or several of its row groups where it is large."""
        if self.location.suffix != ".parquet" or self.size <= SHARD_BYTES:
            return [FileShard(self, layout, config)]
        with readable(self.location, _KINDS), open_parquet(self.location) as file:
            num_groups = file.num_row_groups
        num_shards = min(num_groups, -(-self.size // SHARD_BYTES)) or 1
        ends = [number * num_groups // num_shards for number in range(num_shards + 1)]
        return [FileShard(self, layout, config, range(*pair)) for pair in pairwise(ends)]


@dataclass(frozen=True)
class FileShard(Shard):
    """A file, or some row groups of a Parquet file."""

    table: FoundTable
    layout: Layout
    config: ColumnsConfig
    groups: range | None = None

    @property
    def where(self) -> str:  # type: ignore[override]  # a property here
        """The file."""
        return self.table.place.where

    def read(self) -> Iterator[pa.Table]:
        """The rows of the file."""
        unchecked: Chunk | None = None
        for place, chunk in self._chunks():
            if chunk.all_names:
                self.layout.check_names(chunk.names, place)
            else:
                unchecked = chunk
            yield from Normaliser(self.layout, place).rows(chunk)
        if unchecked is not None:
            self.layout.check_names(unchecked.names, self.table.place)

    def check(self) -> None:
        """Whether a Parquet file is whole and has the columns of the others; other kinds tell when they are read."""
        location, place = self.table.location, self.table.place
        if location.suffix == ".parquet":
            with readable(location, _KINDS), open_parquet(location) as file:
                self.layout.check_names(tuple(file.schema_arrow.names), place)
                self.layout.check_kinds(file.schema_arrow.empty_table(), place)

    def stamp(self) -> str | None:
        """That of the file, with what its path says of its rows; None where pictures lie in files of their own."""
        if self.layout.columns["image"]:
            return None
        place, stamp = self.table.place, self.table.location.stamp()
        return stamp and f"{place.stem} {place.split} {place.constants} {self.groups} {stamp}"

    def _chunks(self) -> Iterator[tuple[Place, Chunk]]:
        if self.groups is None:
            yield from self.table.chunks(self.config, self.layout.wants)
            return
        location = self.table.location
        with readable(location, _KINDS), open_parquet(location) as file:
            for chunk in parquet_chunks(file, self.layout.wants, self.groups):
                yield self.table.place, chunk


@dataclass(frozen=True)
class _First:
    """The first rows of a source, from which its layout follows."""

    place: Place
    chunk: Chunk
    is_clinc: bool

    @classmethod
    def of(cls, tables: Sequence[FoundTable], config: FilesSource) -> _First:
        """Of the first file that has rows. Raises DataError where none has."""
        for table in tables:
            begun = list(_first_chunks(table, config))
            if with_rows := [each for each in begun if each[1].num_rows]:
                is_clinc = any(place.stem.startswith(f"{_CLINC_OUT_OF_SCOPE}_") for place, _ in begun)
                whole = begun[0][1].all_names
                return cls(*with_rows[0 if whole else -1], is_clinc and table.location.suffix == ".json")
        raise DataError("the file holds no rows", where=tables[0].place.where)


def _first_chunks(table: FoundTable, config: FilesSource) -> Iterator[tuple[Place, Chunk]]:
    """The chunks of a table up to one that has all columns that the configuration names; all of a JSON file."""
    named = {getattr(config, field) for field in ColumnsConfig.model_fields if field.endswith("_column")} - {None}
    for place, chunk in table.chunks(config):
        yield place, chunk
        known = chunk.all_names or named <= set(chunk.names)
        if table.location.suffix != ".json" and chunk.num_rows and known:
            return


def find_tables(paths: str | Sequence[str]) -> list[FoundTable]:
    """The files that paths of files, folders and patterns stand for. Raises DataError where one stands for none."""
    if isinstance(paths, str):
        location = Location.of(paths)
        return [_table(file, paths if location.is_local else str(location)) for file in _files(paths)]
    found = [file for path in paths for file in _files(path)]
    common = posixpath.commonpath([file.location.folder.path for file in found])
    return [
        _table(replace(file, relative=posixpath.relpath(file.location.path, common)), str(file.location.folder))
        for file in found
    ]


def _table(file: FoundFile, where: str) -> FoundTable:
    parts = stem_of(file.relative).split("/")
    splits = [found[1].lower() for part in parts if (found := _SPLIT.fullmatch(part))]
    constants = [part.partition("=")[::2] for part in parts[:-1] if "=" in part]
    place = Place(
        where=where if where.endswith(file.relative) else f"{where}: {file.relative}",
        stem="/".join(parts),
        split=_SPLITS[splits[0]] if splits else "",
        folder=file.location.folder,
        constants=tuple((name, "" if value == _NO_VALUE else unquote(value)) for name, value in constants),
    )
    return FoundTable(file.location, place, file.size)


def _files(path: str) -> list[FoundFile]:
    location = Location.of(path)
    if location.is_pattern:
        found = location.glob()
        if not found:
            raise DataError("no file matches the pattern", where=path)
        return found
    kind = location.kind()
    if kind == fs.FileType.Directory:
        return _of_folder(location)
    if kind == fs.FileType.NotFound:
        raise DataError(f"no such file {path!r}", where="source.path", hint=_similar(location))
    return [FoundFile(location, location.name, location.size())]


def _of_folder(folder: Location) -> list[FoundFile]:
    """The files that are named after splits, those in the folder itself before deeper ones; without any, all."""
    for recursive in (False, True):
        found = [file for file in folder.files(recursive=recursive) if file.location.suffix in _KINDS]
        if named := [file for file in found if any(map(_SPLIT.fullmatch, stem_of(file.relative).split("/")))]:
            return named
    kinds = sorted({file.location.suffix for file in found})
    if len(kinds) > 1:
        raise DataError(
            f"the folder holds files of several kinds, {', '.join(kinds)}, and none named after a split",
            where=str(folder),
            hint=f"Name them train.csv, test.csv, …, or give a pattern such as {folder}/*{kinds[0]}",
        )
    if not found:
        raise DataError("the folder holds no data file", where=str(folder), hint=f"Use {', '.join(_KINDS)}")
    return found


def _similar(location: Location) -> str:
    if location.folder.kind() != fs.FileType.Directory:
        return f"The folder {str(location.folder)!r} does not exist either"
    beside = location.folder.files(recursive=False)
    names = [file.relative for file in beside if file.location.suffix in _KINDS]
    return f"The folder holds {', '.join(names[:5])}" if names else "The folder holds no data file"


def _json_chunks(table: FoundTable, config: ColumnsConfig) -> Iterator[tuple[Place, Chunk]]:
    """The rows of a JSON file, which is read whole: a list, or one for each split."""
    with readable(table.location, _KINDS):
        with table.location.open() as stream:
            content = json.loads(stream.read().decode("utf-8-sig"))
        if isinstance(content, list):
            lists = {"": content}
        elif isinstance(content, dict) and all(isinstance(rows, list) for rows in content.values()):
            lists = content
        else:
            raise ValueError("expected a list of objects, or a mapping from split to a list")
        for key, rows in lists.items():
            place = table.place
            if key:
                where = f"{place.where.removesuffix(table.location.name)}{key}"
                place = replace(place, where=where, stem=key, split=key.removeprefix(f"{_CLINC_OUT_OF_SCOPE}_"))
            yield place, _objects(rows, config)


def _objects(rows: list[Any], config: ColumnsConfig) -> Chunk:
    """Rows that are objects as they are; [text, label] pairs under the configured column names."""
    pair_columns = (config.text_column or config.image_column or "text", config.label_column or "label")
    objects: list[Mapping[str, object]] = []
    names: dict[str, None] = {}
    for number, row in enumerate(rows, start=1):
        if isinstance(row, list) and len(row) == len(pair_columns):
            row = dict(zip(pair_columns, row, strict=True))
        if not isinstance(row, dict):
            raise ValueError(f"row {number} is neither an object nor a [text, label] pair")
        objects.append(row)
        names.update(dict.fromkeys(row))
    return Chunk(columns_of(objects, list(names)), 1, tuple(names), len(objects))
