"""Labelled rows from local files: CSV, TSV, JSON, JSON Lines, Parquet; one file, or a folder with a file per split."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field

from kcm.errors import DataError
from kcm.inputs.tables import read_records, readable
from kcm.tasks.columns import ColumnsConfig, Table, to_records
from kcm.tasks.sources import Source, SourceConfig

_CLINC_OUT_OF_SCOPE = "oos"  # CLINC150's data_full.json: {"train": [[text, intent], …], "oos_train": […], …}


class FilesSource(SourceConfig, ColumnsConfig):
    """A file, or a folder whose files are named after their splits (train.csv, test.csv, as Banking77 has them).

    A JSON file holds a list of objects, or a mapping from split to a list of objects or of [text, label] pairs
    (CLINC150's own layout).
    """

    path: str = Field(description="CSV, TSV, JSON, JSONL or Parquet file, or a folder of them.")

    def build(self, assets_dir: Path) -> Source:
        tables = self.local_tables()
        records = to_records(tables, self, where=self.path)
        return Source(Path(self.path).stem, records, self.labels, out_of_scope_label(self, tables))

    def local_tables(self) -> list[Table]:
        return read_files(self)

    def of_tables(self, tables: Sequence[Table], text_column: str) -> Source:
        described = self.model_copy(update={"text_column": text_column})
        records = to_records(tables, described, where=self.path)
        return Source(Path(self.path).stem, records, self.labels, self.out_of_scope_label)


def read_files(config: FilesSource) -> list[Table]:
    """All tables of the source. Raises DataError for a missing, unreadable or empty file."""
    path = Path(config.path).expanduser()
    if path.is_dir():
        return [table for file, split in _split_files(path) for table in _read(file, split, config)]
    if not path.is_file():
        raise DataError(f"no such file {config.path!r}", where="source.path", mend=_similar(path))
    return _read(path, "", config)


def out_of_scope_label(config: FilesSource, tables: Iterable[Table]) -> str | None:
    """The configured label, or the one of CLINC150 when the tables have the names that its layout gives them."""
    is_clinc = any(table.name.startswith(f"{_CLINC_OUT_OF_SCOPE}_") for table in tables)
    return config.out_of_scope_label or (_CLINC_OUT_OF_SCOPE if is_clinc else None)


def _similar(path: Path) -> str:
    if not path.parent.is_dir():
        return f"The folder {str(path.parent)!r} does not exist either"
    names = sorted(file.name for file in path.parent.iterdir() if file.suffix.lower() in _READERS)
    return f"The folder holds {', '.join(names[:5])}" if names else "The folder holds no data file"


def _split_files(folder: Path) -> Iterator[tuple[Path, str]]:
    names = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}
    found = [
        (file, names[file.stem.lower()])
        for file in sorted(folder.iterdir())
        if file.suffix.lower() in _READERS and file.stem.lower() in names
    ]
    if not found:
        raise DataError(
            "the folder holds no file named after a split", where=str(folder), mend="Name them train.csv, test.csv, …"
        )
    yield from found


def _read(path: Path, split: str, config: FilesSource) -> list[Table]:
    with readable(path, _READERS):
        try:
            tables = _READERS[path.suffix.lower()](path, split, config)
        except pd.errors.EmptyDataError:
            tables = []
    if not any(table.rows for table in tables):
        raise DataError("the file holds no rows", where=str(path))
    return tables


def _read_table(path: Path, split: str, config: FilesSource) -> list[Table]:
    columns, rows = read_records(path)
    return [Table(path.name, columns, rows, split, path.parent)]


def _read_jsonl(path: Path, split: str, config: FilesSource) -> list[Table]:
    rows = []
    with path.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number}: {error.msg}") from None
            except RecursionError:
                raise ValueError(f"line {number}: nested too deeply") from None
    return [_objects(rows, path.name, split, config, path.parent)]


def _read_json(path: Path, split: str, config: FilesSource) -> list[Table]:
    content = _json(path)
    if isinstance(content, list):
        return [_objects(content, path.name, split, config, path.parent)]
    if isinstance(content, dict) and all(isinstance(rows, list) for rows in content.values()):
        return [
            _objects(rows, key, key.removeprefix(f"{_CLINC_OUT_OF_SCOPE}_"), config, path.parent)
            for key, rows in content.items()
        ]
    raise ValueError("expected a list of objects, or a mapping from split to a list")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _objects(rows: list[Any], name: str, split: str, config: FilesSource, folder: Path) -> Table:
    """Rows that are objects as they are; [text, label] pairs under the configured column names."""
    pair_columns = (config.text_column or config.image_column or "text", config.label_column or "label")
    objects: list[Mapping[str, object]] = []
    columns: dict[str, None] = {}
    for number, row in enumerate(rows, start=1):
        if isinstance(row, list) and len(row) == len(pair_columns):
            row = dict(zip(pair_columns, row, strict=True))
        if not isinstance(row, dict):
            raise ValueError(f"row {number} is neither an object nor a [text, label] pair")
        objects.append(row)
        columns.update(dict.fromkeys(row))
    return Table(name, tuple(columns), objects, split, folder)


_READERS: dict[str, Callable[[Path, str, FilesSource], list[Table]]] = {
    ".csv": _read_table,
    ".tsv": _read_table,
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".parquet": _read_table,
}
