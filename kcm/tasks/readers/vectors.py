"""The vector of a row: one column of lists, or many columns of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kcm.errors import DataError
from kcm.inputs.chunks import Chunk
from kcm.inputs.tables import missing_column
from kcm.tasks.rows import fault_column


def matching_columns(columns: Sequence[str], patterns: Sequence[str], where: str) -> tuple[str, ...]:
    """The columns that match any of the patterns, such as pixel_*, in the table's order; DataError for none."""
    for pattern in patterns:
        if not any(fnmatchcase(column, pattern) for column in columns):
            raise missing_column(pattern, "vector columns", columns, where)
    return tuple(column for column in columns if any(fnmatchcase(column, pattern) for pattern in patterns))


@dataclass(frozen=True)
class VectorColumns:
    """The columns that make the vector, and its width `dim`; one column of lists where `is_list`.

    `where` is the table that the width was found in.
    """

    columns: tuple[str, ...]
    dim: int
    is_list: bool
    where: str

    @classmethod
    def found_in(cls, first: Chunk, patterns: Sequence[str], where: str) -> VectorColumns:
        """The columns that match the patterns in a source's first table. Raises DataError where they make no vector."""
        columns = matching_columns(first.names, patterns, where)
        found = first.table.schema.field(columns[0]).type
        if len(columns) > 1 or not _is_list(found):
            for column in columns:
                _check_number(column, first.table.schema.field(column).type, where, or_text=True)
            return cls(columns, len(columns), False, where)
        _check_number(columns[0], found.value_type, where)
        if pa.types.is_fixed_size_list(found):
            return cls(columns, found.list_size, True, where)
        widths = pc.drop_null(pc.list_value_length(first.table[columns[0]]))
        if not len(widths) or not widths[0].as_py():
            raise DataError(
                f"the first rows of column {columns[0]!r} hold no vector, so its width is unknown", where=where
            )
        return cls(columns, int(widths[0].as_py()), True, where)

    def wants(self, name: str) -> bool:
        """Whether a column is part of the vector."""
        return name in self.columns

    def values(self, table: pa.Table, where: str) -> tuple[pa.Array, pa.Array]:
        """The vectors, fixed_size_list<float32>[dim], null for a missing one; and what is wrong with each, or "".

        Raises DataError for a table whose columns cannot make such vectors.
        """
        if missing := [column for column in self.columns if column not in table.schema.names]:
            raise missing_column(missing[0], "vector columns", table.schema.names, where)
        if self.is_list:
            return self._of_lists(table[self.columns[0]], where)
        return self._of_numbers(table, where)

    def _of_lists(self, column: pa.ChunkedArray, where: str) -> tuple[pa.Array, pa.Array]:
        name, found = self.columns[0], column.type
        if pa.types.is_null(found):
            return pa.nulls(len(column), pa.list_(pa.float32(), self.dim)), pa.array([""] * len(column))
        if not _is_list(found):
            raise DataError(f"column {name!r} holds {found}, in {self.where} it holds lists", where=where)
        _check_number(name, found.value_type, where)
        if pa.types.is_fixed_size_list(found) and found.list_size != self.dim:
            raise DataError(
                f"the vectors of column {name!r} have {found.list_size} numbers, in {self.where} they have {self.dim}",
                where=where,
            )
        lists = column.combine_chunks()
        lists = pa.concat_arrays(lists.chunks) if isinstance(lists, pa.ChunkedArray) else lists
        widths_N = pc.fill_null(pc.list_value_length(lists), -1).to_numpy(zero_copy_only=False)
        fits_N = widths_N == self.dim
        fitting = lists if fits_N.all() else lists.filter(pa.array(fits_N))
        values_ND = _floats(pc.list_flatten(fitting)).reshape(-1, self.dim)
        if len(fitting) < len(lists):
            spread_ND = np.zeros((len(lists), self.dim), dtype=np.float32)
            spread_ND[fits_N] = values_ND
            values_ND = spread_ND
        faults = {
            int(row): f"the vector has {widths_N[row]} numbers, not {self.dim}"
            for row in np.flatnonzero(~fits_N & (widths_N >= 0))
        }
        return self._checked(values_ND, faults, missing_N=widths_N < 0)

    def _of_numbers(self, table: pa.Table, where: str) -> tuple[pa.Array, pa.Array]:
        values_ND = np.empty((len(table), self.dim), dtype=np.float32)
        faults: dict[int, str] = {}
        for number, name in enumerate(self.columns):
            column = table[name]
            _check_number(name, column.type, where, or_text=True)
            values_ND[:, number] = _parsed(column) if _is_text(column.type) else _floats(column)
            for row in np.flatnonzero(~np.isfinite(values_ND[:, number])):
                faults.setdefault(int(row), f"{column[row].as_py()!r} in column {name!r} is not a finite number")
        return self._checked(values_ND, faults)

    def _checked(
        self, values_ND: NDArray[np.float32], faults: dict[int, str], missing_N: NDArray[np.bool_] | None = None
    ) -> tuple[pa.Array, pa.Array]:
        """Vectors, and faults by row; NaN and infinity are faults."""
        finite_ND = np.isfinite(values_ND)
        for row in np.flatnonzero(~finite_ND.all(axis=1)):
            position = int(np.flatnonzero(~finite_ND[row])[0])
            faults.setdefault(int(row), f"number {position + 1} of the vector is not finite")
        values_ND[~finite_ND] = 0
        mask = None if missing_N is None or not missing_N.any() else pa.array(missing_N)
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(values_ND.reshape(-1)), self.dim, mask=mask)
        return vectors, fault_column(faults, len(values_ND))


def _is_text(found: pa.DataType) -> bool:
    return bool(pa.types.is_string(found) or pa.types.is_large_string(found))


def _is_list(found: pa.DataType) -> bool:
    return bool(pa.types.is_list(found) or pa.types.is_large_list(found) or pa.types.is_fixed_size_list(found))


def _check_number(column: str, found: pa.DataType, where: str, *, or_text: bool = False) -> None:
    """Raise DataError for a column that can hold no numbers; text may, in files where every cell is text."""
    types = pa.types
    tests = [types.is_integer, types.is_floating, types.is_boolean, types.is_null, types.is_decimal]
    if not any(test(found) for test in tests) and not (or_text and _is_text(found)):
        raise DataError(f"column {column!r} holds {found}, not numbers", where=where)


def _floats(values: pa.Array | pa.ChunkedArray) -> NDArray[np.float32]:
    """Numbers as float32, NaN for null; one beyond float32 is infinite."""
    if pa.types.is_float32(values.type) and not values.null_count:
        return np.array(values.to_numpy(zero_copy_only=False))
    with np.errstate(over="ignore"):
        return np.asarray(values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float32)


def _parsed(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """The numbers that cells of text spell, NaN where one spells none."""
    try:
        return _floats(pc.cast(pc.utf8_trim_whitespace(column), pa.float64()))
    except pa.ArrowInvalid:
        return np.array([_number(cell) for cell in column.to_pylist()], dtype=np.float32)


def _number(cell: str | None) -> float:
    try:
        return float(cell or "nan")
    except ValueError:
        return float("nan")
