"""The columns of a user's tables, and the normalised rows made from them.

Every named column except picture and vector becomes text, as `kcm.inputs.cell_text` writes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from kcm.config import Config, LocalPath
from kcm.errors import DataError
from kcm.inputs.cell_text import as_text, without_missing
from kcm.inputs.chunks import Chunk, Wanted, read_chunks, row_names
from kcm.inputs.location import Location
from kcm.inputs.pictures import picture_of
from kcm.inputs.tables import missing_column
from kcm.inputs.textfile import UNKNOWN_FORMAT, TextFormat
from kcm.tasks.readers.vectors import VectorColumns
from kcm.tasks.rows import fault_column, row_schema

_LABEL_COLUMNS = ("label", "category", "intent")  # the last two are from Banking77 and CLINC150
_PICTURES_PER_TABLE = 256  # pictures read from files per piece of a chunk
_FIELDS = {
    "text": "text_column",
    "image": "image_column",
    "label": "label_column",
    "id": "id_column",
    "group": "group_column",
    "task": "task_column",
    "split": "split_column",
}


class ColumnsConfig(Config):
    """Names of the columns of a user's table."""

    text_column: str | None = Field(
        default="text",
        description="Column with the text; null if rows have no text, only a picture or a vector.",
    )
    image_column: str | None = Field(
        default=None, description="Column with a picture: a path from the table's folder, or the bytes of its file."
    )
    image_root: Annotated[str | None, LocalPath] = Field(
        default=None, description="Folder below which the paths of pictures must lead; null: the table's own."
    )
    label_column: str | None = Field(
        default=None,
        description="Column with the label; null: label, category or intent.",
    )
    id_column: str | None = Field(
        default=None, description="Column with a unique, stable id; null: file or split, and row number."
    )
    group_column: str | None = Field(
        default=None, description="Column that names rows that belong together, such as a document."
    )
    task_column: str | None = Field(default=None, description="Column with the task (domain) of a row.")
    split_column: str | None = Field(
        default=None, description="Column with train, val or test; null: `split`, if there is such a column."
    )
    labels: tuple[str, ...] = Field(
        default=(), description="The label list, in order; empty: all labels found, sorted."
    )
    out_of_scope_label: str | None = Field(default=None, description="Label that means none of these.")


@dataclass(frozen=True)
class FoundTable:
    """A file with rows: `where` in messages, `stem` in the ids of its rows.

    `split` and `task` are empty if no name of a file and no key of the configuration gives them.
    """

    location: Location
    where: str
    stem: str
    split: str = ""
    size: int = 0
    text_format: TextFormat = UNKNOWN_FORMAT
    task: str = ""

    def chunks(self, wanted: Wanted = lambda name: True) -> Iterator[Chunk]:
        """The unchanged rows, a bounded number at a time."""
        return read_chunks(self.location, wanted, self.text_format)


@dataclass(frozen=True)
class TableLayout:
    """What the tables of a source have in common, taken from the first of them.

    `columns` names the column of each part of a row, "" for none. `image_root` is the folder that paths of pictures
    must not leave, None for the folder of their table. `known_labels` are labels even if they look like missing values,
    such as "NA".
    """

    where: str
    columns: Mapping[str, str]
    vector: VectorColumns | None = None
    image_root: Location | None = None
    known_labels: frozenset[str] = frozenset()

    @classmethod
    def found_in(
        cls, first: Chunk, table: FoundTable, config: ColumnsConfig, vectors: Sequence[str] = ()
    ) -> TableLayout:
        """The layout of the tables; `first` is the beginning of the first table.

        Raises DataError for a missing column, naming the nearest one, or a column that cannot hold its part.
        """
        names = first.names
        columns = {part: getattr(config, key) or "" for part, key in _FIELDS.items()}
        columns["label"] = columns["label"] or next((name for name in _LABEL_COLUMNS if name in names), "label")
        if not columns["split"] and not table.split and "split" in names:
            columns["split"] = "split"
        vector = VectorColumns.found_in(first, vectors, table.where) if vectors else None
        root = Location.of(config.image_root) if config.image_root else None
        labels = frozenset(filter(None, (*config.labels, config.out_of_scope_label)))
        layout = cls(table.where, columns, vector, image_root=root, known_labels=labels)
        layout.check_names(first.names, table)
        return layout

    def wants(self, name: str) -> bool:
        """Whether a column is read."""
        return name in self.columns.values() or (self.vector is not None and self.vector.wants(name))

    def check_names(self, names: Sequence[str], table: FoundTable) -> None:
        """Raise DataError for a table that lacks a named column, or has an extra one that changes what is read."""
        if not self.columns["split"] and not table.split and "split" in names:
            raise DataError(
                f"there is a column 'split', which {self.where} lacks",
                where=table.where,
                hint="Name it in split_column, or remove it",
            )
        for part, column in self.columns.items():
            if column and column not in names:
                raise missing_column(column, _FIELDS[part], names, table.where)


@dataclass(frozen=True)
class Normaliser:
    """Makes normalised rows from the chunks of one table. It can be pickled."""

    layout: TableLayout
    table: FoundTable

    def rows(self, chunk: Chunk) -> Iterator[pa.Table]:
        """The rows of a chunk, in the schema of `kcm.tasks.rows`; in smaller pieces if pictures are read from files.

        Raises DataError for a column of lists or objects in place of a text.
        """
        cells = self.cells(chunk)
        step = _PICTURES_PER_TABLE if self.layout.columns["image"] else max(len(cells), 1)
        for start in range(0, len(cells), step):
            yield self.pictured(cells.slice(start, step))

    def cells(self, chunk: Chunk) -> pa.Table:
        """The rows of a chunk, with pictures as the table has them: paths, or bytes."""
        columns, size = self.layout.columns, chunk.num_rows
        parts = {name: self._text(chunk, name) for name in ("text", "label", "group", "task", "split", "id")}
        numbered = row_names(self.table.stem, chunk.first, size)
        if not columns["id"]:
            parts["id"] = numbered
        if not columns["split"]:
            parts["split"] = _constant(self.table.split, size)
        if not columns["task"]:
            parts["task"] = _constant(self.table.task, size)
        bad = {**chunk.faults, **self._nested_labels(chunk)}
        faults = fault_column(bad, size)
        vector = self.layout.vector
        if vector is not None:
            parts["vector"], wrong = vector.values(chunk.table, self.table.where)
            faults = pc.if_else(pc.equal(faults, ""), wrong, faults)
        if bad:  # the listed reason is the fault, not the cells that it leaves empty
            is_faulty = pc.not_equal(faults, "")
            parts["id"] = pc.if_else(pc.and_(is_faulty, parts["id"].is_null()), numbered, parts["id"])
            for name in ("text", "label", "group", "task", "split"):
                parts[name] = pc.if_else(is_faulty, pc.fill_null(parts[name], ""), parts[name])
        image, parts["fault"] = columns["image"], faults
        parts["image"] = chunk.table[image] if image in chunk.table.schema.names else pa.nulls(size, pa.large_binary())
        return pa.table(parts)

    def pictured(self, rows: pa.Table) -> pa.Table:
        """Some rows of `cells` with the bytes of their pictures, null if there is none."""
        columns = {name: rows[name] for name in rows.column_names}
        columns["image"] = _constant(b"", len(rows))
        if self.layout.columns["image"]:
            folder, root = self.table.location.folder, self.layout.image_root
            pictures = [picture_of(cell, folder, root) for cell in rows["image"].to_pylist()]
            columns["image"] = pa.array([data for data, _ in pictures], pa.large_binary())
            reasons = pa.array([reason for _, reason in pictures], pa.string())
            columns["fault"] = pc.if_else(pc.equal(rows["fault"], ""), reasons, rows["fault"])
        schema = row_schema(self.layout.vector.dim if self.layout.vector else None)
        return pa.table([columns[name] for name in schema.names], schema=schema)

    def _text(self, chunk: Chunk, part: str) -> pa.Array:
        """The cells of a part of the rows as text; null for a missing value, "" if no column is named."""
        column = self.layout.columns[part]
        if not column:
            return _constant("", chunk.num_rows)
        if column not in chunk.table.schema.names:  # a key that no earlier object of the file had
            return pa.nulls(chunk.num_rows, pa.string())
        if pa.types.is_nested(kind := chunk.table[column].type):
            raise DataError(f"column {column!r} holds {kind}, not text", where=self.table.where)
        cells = as_text(chunk.table[column])
        if part == "text":  # any non-empty text is an input, including "None"
            return cells
        return without_missing(cells, self.layout.known_labels if part == "label" else ())

    def _nested_labels(self, chunk: Chunk) -> dict[int, str]:
        """Faults of rows whose label is a list or an object."""
        column = self.layout.columns["label"]
        if chunk.objects is None or not column:
            return {}
        nested = [row for row, cells in enumerate(chunk.objects) if isinstance(cells.get(column), dict | list)]
        return dict.fromkeys(nested, "the label is a list or an object, not a text or a number")


def _constant(value: str | bytes, size: int) -> pa.Array:
    kind = pa.string() if isinstance(value, str) else pa.large_binary()
    return pa.repeat(pa.scalar(value, kind), size)
