"""The columns of a user's tables, and the normalised rows that they make.

Every named column but the picture and the vector becomes text: an integer its digits, another number as Python writes
it. One column is one kind in all tables of a source: integers, numbers, text, or another. Where tables differ, integers
widen to numbers, and both to text; any other difference is refused with the names of the column and the two files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from kcm.config import Config
from kcm.errors import DataError
from kcm.inputs.chunks import Chunk
from kcm.inputs.location import Location
from kcm.inputs.pictures import picture_of
from kcm.inputs.tables import missing_column
from kcm.paths import LocalPath
from kcm.tasks.readers.vectors import VectorColumns
from kcm.tasks.rows import fault_column, row_schema

_LABEL_COLUMNS = ("label", "category", "intent")  # the last two: Banking77, CLINC150
_PICTURES_AT_ONCE = 256  # that are read from their files before they are handed on
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
        default="text", description="Column with the text; null where rows have none: a picture or a vector alone."
    )
    image_column: str | None = Field(
        default=None, description="Column with a picture: a path from the table's folder, or the bytes of its file."
    )
    image_root: Annotated[str | None, LocalPath] = Field(
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
class Place:
    """Where a table lies: `where` in messages, `stem` in the ids of its rows, `folder` for paths of pictures.

    `folder` is None where rows lie in none. `split` is empty where nothing names one. `constants` are columns that the
    path gives to all rows of the table, as hive-partitioned folders do.
    """

    where: str
    stem: str
    split: str = ""
    folder: Location | None = None
    constants: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Layout:
    """What the tables of a source have in common, found in the first of them.

    `columns` name the column of each part of a row, "" where there is none. `kinds` are theirs in the first table.
    `classes` are the names that the numbers of a column stand for; a negative one stands for none. `image_root` is the
    folder that paths of pictures must not leave, None for that of their table.
    """

    where: str
    columns: Mapping[str, str]
    kinds: Mapping[str, str]
    vector: VectorColumns | None = None
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    image_root: Location | None = None

    @classmethod
    def found_in(cls, first: Chunk, place: Place, config: ColumnsConfig, vectors: Sequence[str] = ()) -> Layout:
        """The layout of the tables of which `first` begins the first.

        Raises DataError for a column that it lacks, naming the nearest, or that cannot be what it is named for.
        """
        names = [*first.names, *(name for name, _ in place.constants)]
        columns = {part: getattr(config, key) or "" for part, key in _FIELDS.items()}
        columns["label"] = columns["label"] or next((name for name in _LABEL_COLUMNS if name in names), "label")
        if not columns["split"] and not place.split and "split" in names:
            columns["split"] = "split"
        for part, column in columns.items():
            if column and column not in names:
                raise missing_column(column, _FIELDS[part], names, place.where)
        kinds = {each.name: kind_of(each.type) for each in first.table.schema} if first.typed else {}
        vector = VectorColumns.found_in(first, vectors, place.where) if vectors else None
        root = Location.of(config.image_root) if config.image_root else None
        return cls(place.where, columns, kinds, vector, image_root=root)

    def wants(self, name: str) -> bool:
        """Whether a column is read."""
        return name in self.columns.values() or (self.vector is not None and self.vector.wants(name))

    def check_names(self, names: Sequence[str], place: Place) -> None:
        """Raise DataError for a table whose columns lack one that is named, or have one that changes what is read."""
        names = [*names, *(name for name, _ in place.constants)]
        if not self.columns["split"] and not place.split and "split" in names:
            raise DataError(
                f"there is a column 'split', which {self.where} lacks",
                where=place.where,
                hint="Name it in split_column, or remove it",
            )
        for part, column in self.columns.items():
            if column and column not in names:
                raise missing_column(column, _FIELDS[part], names, place.where)

    def check_kinds(self, table: pa.Table, place: Place) -> None:
        """Raise DataError for a table in which a column holds what cannot be the same column as in the first."""
        for part, column in self.columns.items():
            if column and part != "image" and column in table.schema.names:
                self._check_kind(column, table[column].type, place.where)

    def _check_kind(self, column: str, found: pa.DataType, where: str) -> None:
        kind, first = kind_of(found), self.kinds.get(column, "text")
        if "nested" in (kind, first):
            raise DataError(f"column {column!r} holds {found}, not text", where=where)
        if kind != first and not {kind, first} <= {"integers", "numbers", "text", "nothing"}:
            raise DataError(
                f"column {column!r} holds {kind} ({found}), in {self.where} it holds {first}",
                where=where,
                hint="Give both files the same type",
            )


def kind_of(found: pa.DataType) -> str:
    """What a column holds, in a word; columns of one kind, and those that widen, can be one column of a source."""
    if pa.types.is_dictionary(found):
        found = found.value_type
    tests: dict[str, Callable[[pa.DataType], bool]] = {
        "text": lambda each: (
            pa.types.is_string(each) or pa.types.is_large_string(each) or pa.types.is_string_view(each)
        ),
        "integers": pa.types.is_integer,
        "numbers": lambda each: pa.types.is_floating(each) or pa.types.is_decimal(each),
        "nothing": pa.types.is_null,
        "nested": pa.types.is_nested,
        "truths": pa.types.is_boolean,
        "bytes": lambda each: pa.types.is_binary(each) or pa.types.is_large_binary(each),
        "times": pa.types.is_temporal,
    }
    return next((kind for kind, test in tests.items() if test(found)), str(found))


@dataclass(frozen=True)
class Normaliser:
    """Makes normalised rows from the chunks of one table. It can be pickled."""

    layout: Layout
    place: Place

    def rows(self, chunk: Chunk) -> Iterator[pa.Table]:
        """The rows of a chunk, in the schema of `kcm.tasks.rows`; cut where pictures are read from files.

        Raises DataError as `Layout.check_kinds` does.
        """
        if chunk.typed:
            self.layout.check_kinds(chunk.table, self.place)
        columns = self.layout.columns
        size = chunk.num_rows
        parts: dict[str, pa.Array] = {
            "text": self._text(chunk, columns["text"]),
            "label": self._text(chunk, columns["label"]),
            "id": self._named(chunk, columns["id"]) if columns["id"] else self._numbered(chunk),
            "group": self._named(chunk, columns["group"]),
            "task": self._named(chunk, columns["task"]),
            "split": self._named(chunk, columns["split"]) if columns["split"] else _constant(self.place.split, size),
        }
        faults = fault_column(chunk.faults, size)
        vector = self.layout.vector
        if vector is not None:
            parts["vector"], wrong = vector.values(chunk.table, self.place.where)
            faults = pc.if_else(pc.equal(faults, ""), wrong, faults)
        schema = row_schema(vector.dim if vector else None)
        step = _PICTURES_AT_ONCE if columns["image"] else max(size, 1)
        for start in range(0, size, step):
            part = {name: column.slice(start, step) for name, column in parts.items()}
            part["fault"] = faults.slice(start, step)
            part["image"] = _constant(b"", min(step, size - start))
            if columns["image"]:
                part["image"], reasons = self._images(chunk.table[columns["image"]].slice(start, step))
                part["fault"] = pc.if_else(pc.equal(part["fault"], ""), reasons, part["fault"])
            yield pa.table([part[name] for name in schema.names], schema=schema)

    def _text(self, chunk: Chunk, column: str) -> pa.Array:
        """Cells as text; null where a value is missing."""
        if not column:
            return _constant("", chunk.num_rows)
        constants = dict(self.place.constants)
        if column in constants:
            return _constant(constants[column], chunk.num_rows)
        if column not in chunk.table.schema.names:  # a key that no object of the file has had so far
            return pa.nulls(chunk.num_rows, pa.string())
        if column in self.layout.classes:
            numbers = _whole(chunk.table[column])
            known = pc.if_else(pc.less(numbers, 0), pa.scalar(None, numbers.type), numbers)
            return pa.array(self.layout.classes[column], pa.string()).take(known)
        return as_text(
            chunk.table[column], widened_from=self.layout.kinds.get(column, "text") if chunk.typed else "text"
        )

    def _named(self, chunk: Chunk, column: str) -> pa.Array:
        """As `_text`, of a column that must not be empty where it is named: an empty cell is a missing value."""
        found = self._text(chunk, column)
        return pc.if_else(pc.equal(found, ""), pa.scalar(None, pa.string()), found) if column else found

    def _numbered(self, chunk: Chunk) -> pa.Array:
        numbers = pa.array(np.arange(chunk.first, chunk.first + chunk.num_rows)).cast(pa.string())
        return pc.binary_join_element_wise(self.place.stem, numbers, "-")

    def _images(self, column: pa.ChunkedArray) -> tuple[pa.Array, pa.Array]:
        """Pictures in the bytes of their files, null where there is none, and what is wrong with them."""
        if kind_of(column.type) == "bytes":
            data = _whole(column).cast(pa.large_binary())
            empty = pc.equal(pc.binary_length(data), 0)
            return pc.if_else(empty, pa.scalar(None, pa.large_binary()), data), _constant("", len(data))
        found = [picture_of(cell, self.place.folder, self.layout.image_root) for cell in column.to_pylist()]
        return (
            pa.array([data for data, _ in found], pa.large_binary()),
            pa.array([reason for _, reason in found], pa.string()),
        )


def as_text(column: pa.ChunkedArray, *, widened_from: str = "text") -> pa.Array:
    """A column as text: strings as they are, integers in digits, all else as Python writes it; NaN is null.

    `widened_from` is the kind of the column in the first table of its source: whole numbers become integers again where
    that held integers, and integers are written as numbers where that held numbers.
    """
    whole = _whole(column)
    kind = kind_of(whole.type)
    if kind == "integers" and widened_from == "numbers":
        whole, kind = whole.cast(pa.float64(), safe=False), "numbers"
    if kind in ("text", "integers", "nothing"):
        return whole.cast(pa.string())
    codes = whole if pa.types.is_dictionary(whole.type) else whole.dictionary_encode()
    values = [_written(value, as_integer=widened_from == "integers") for value in codes.dictionary.to_pylist()]
    return pa.array(values, pa.string()).take(codes.indices)


def _written(value: object, *, as_integer: bool) -> str | None:
    if value is None or value != value:  # NaN is the only value that differs from itself
        return None
    return str(int(value)) if as_integer and isinstance(value, float) and value.is_integer() else str(value)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    found = column.combine_chunks()
    return pa.concat_arrays(found.chunks) if isinstance(found, pa.ChunkedArray) else found


def _constant(value: str | bytes, size: int) -> pa.Array:
    kind = pa.string() if isinstance(value, str) else pa.large_binary()
    return pa.repeat(pa.scalar(value, kind), size)
