"""The columns of a user's table, and the records they make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from kcm.config import Config
from kcm.inputs.pictures import picture_of
from kcm.inputs.tables import missing_column
from kcm.tasks.rows import Record

_LABEL_COLUMNS = ("label", "category", "intent")  # the last two: Banking77, CLINC150


class ColumnsConfig(Config):
    """Names of the columns of a user's table."""

    text_column: str | None = Field(
        default="text", description="Column with the text; null where rows have a picture alone."
    )
    image_column: str | None = Field(
        default=None, description="Column with a picture: a path from the table's folder, or the bytes of its file."
    )
    image_root: str | None = Field(
        default=None, description="Folder below which the paths of pictures must lead; null: the table's own."
    )
    label_column: str | None = Field(
        default=None, description="Column with the label; null: label, category or intent."
    )
    id_column: str | None = Field(
        default=None, description="Column with a unique, stable id; null: file or split, and row number."
    )
    group_column: str | None = Field(
        default=None, description="Column that tells which rows belong together, such as a document."
    )
    task_column: str | None = Field(default=None, description="Column with the task (domain) of a row.")
    split_column: str | None = Field(
        default=None, description="Column with train, val or test; null: `split` where there is one."
    )
    labels: tuple[str, ...] = Field(
        default=(), description="The label list, in order; empty: all labels found, sorted."
    )
    out_of_scope_label: str | None = Field(default=None, description="Label that means none of these.")


@dataclass(frozen=True)
class Table:
    """Rows of one file or hub split, as mappings from column to value. `split` is empty where nothing names one.

    `folder` is where paths of pictures start from, None for rows that lie in none.
    """

    name: str
    columns: tuple[str, ...]
    rows: Sequence[Mapping[str, object]]
    split: str = ""
    folder: Path | None = None


def to_records(tables: Iterable[Table], config: ColumnsConfig, *, where: str) -> Iterator[Record]:
    """The records of all tables. Raises DataError for a column that a table lacks, naming the nearest."""
    for table in tables:
        if table.rows:
            yield from _table_records(table, config, where)


def _table_records(table: Table, config: ColumnsConfig, where: str) -> Iterator[Record]:
    place = f"{where}: {table.name}"
    text = _optional(table, config.text_column, "text_column", place)
    image = _optional(table, config.image_column, "image_column", place)
    label = _label_column(table, config, place)
    unique = _optional(table, config.id_column, "id_column", place)
    group = _optional(table, config.group_column, "group_column", place)
    task = _optional(table, config.task_column, "task_column", place)
    split = _optional(table, config.split_column, "split_column", place)
    if not split and not table.split and "split" in table.columns:
        split = "split"
    root = Path(config.image_root).expanduser() if config.image_root else None
    for number, row in enumerate(table.rows, start=1):
        part = _cell(row, split) if split else table.split
        picture, fault = picture_of(row.get(image), table.folder, root) if image else (b"", "")
        yield Record(
            id=_cell(row, unique) if unique else f"{Path(table.name).stem}-{number}",
            text=_string(row.get(text)) if text else "",
            label=_string(row.get(label)),
            group=_cell(row, group) if group else "",
            task=_cell(row, task) if task else "",
            split=part,
            image=picture,
            fault=fault,
        )


def _label_column(table: Table, config: ColumnsConfig, where: str) -> str:
    if config.label_column is None:
        for name in _LABEL_COLUMNS:
            if name in table.columns:
                return name
    return _column(table, config.label_column or _LABEL_COLUMNS[0], "label_column", where)


def _optional(table: Table, column: str | None, field: str, where: str) -> str:
    return _column(table, column, field, where) if column else ""


def _column(table: Table, column: str, field: str, where: str) -> str:
    if column in table.columns:
        return column
    raise missing_column(column, field, table.columns, where)


def _cell(row: Mapping[str, object], column: str) -> str | None:
    """A cell of a column that must not be empty where it is named: an empty one is a missing value."""
    return _string(row.get(column)) or None


def _string(value: object) -> str | None:
    if value is None or value != value:  # NaN is the only value that differs from itself
        return None
    return value if isinstance(value, str) else str(value)
