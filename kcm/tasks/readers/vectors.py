"""The vector of a row: one column of lists, or many columns of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kcm.errors import DataError
from kcm.inputs.cell_text import is_text, whole
from kcm.inputs.chunks import Chunk
from kcm.inputs.tables import matching_columns, missing_column
from kcm.inputs.vectors import numbers_in
from kcm.tasks.rows import fault_column


@dataclass(frozen=True)
class VectorColumns:
    """The columns that make the vector, and its width `dim`; one column of lists if `is_list`.

    `where` is the table that defined the width.
    """

    columns: tuple[str, ...]
    dim: int
    is_list: bool
    where: str

    @classmethod
    def found_in(cls, first: Chunk, patterns: Sequence[str], where: str) -> VectorColumns:
        """The columns that match the patterns in a source's first table. Raises DataError if they make no vector."""
        columns = matching_columns(first.names, patterns, "vector columns", where)
        type_ = first.table.schema.field(columns[0]).type
        if len(columns) > 1 or not _is_list(type_):
            for column in columns:
                _check_number(column, first.table.schema.field(column).type, where, or_text=True)
            return cls(columns, len(columns), False, where)
        _check_number(columns[0], type_.value_type, where)
        if pa.types.is_fixed_size_list(type_):
            return cls(columns, type_.list_size, True, where)
        widths = pc.drop_null(pc.list_value_length(first.table[columns[0]]))
        if not len(widths) or not widths[0].as_py():
            raise DataError(
                f"the first rows of column {columns[0]!r} hold no vector, so its width is unknown", where=where
            )
        return cls(columns, int(widths[0].as_py()), True, where)

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self.columns)

    def wants(self, name: str) -> bool:
        """Whether a column is part of the vector."""
        return name in self._names

    def values(self, table: pa.Table, where: str) -> tuple[pa.Array, pa.Array]:
        """The vectors, fixed_size_list<float32>[dim], null for a missing one; and the fault of each, or "".

        Raises DataError for a table whose columns cannot make such vectors.
        """
        names = table.schema.names  # Arrow builds the list on every access
        if missing_names := self._names.difference(names):
            raise missing_column(min(missing_names, key=self.columns.index), "vector columns", names, where)
        if self.is_list:
            values_ND, width_N = self._of_lists(table[self.columns[0]], where)
        else:
            for name in self.columns:
                _check_number(name, table[name].type, where, or_text=True)
            values_ND = np.stack([_floats(table[name]) for name in self.columns], axis=1)
            width_N = np.full(len(table), self.dim)
        is_finite_ND, is_missing_N = np.isfinite(values_ND), width_N < 0
        faults = {
            int(row): f"the vector has {width_N[row]} numbers, not {self.dim}"
            for row in np.flatnonzero((width_N != self.dim) & ~is_missing_N)
        }
        for row in np.flatnonzero(~is_finite_ND.all(axis=1)).tolist():
            faults[row] = self._not_finite(table, row, int(np.argmin(is_finite_ND[row])))
        values_ND[~is_finite_ND] = 0
        mask = pa.array(is_missing_N) if is_missing_N.any() else None
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(values_ND.reshape(-1)), self.dim, mask=mask)
        return vectors, fault_column(faults, len(table))

    def _of_lists(self, column: pa.ChunkedArray, where: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The numbers [N, D], 0 for a list of another length; and the lengths [N], -1 for a missing list."""
        name, type_ = self.columns[0], column.type
        values_ND = np.zeros((len(column), self.dim), dtype=np.float32)
        if pa.types.is_null(type_):
            return values_ND, np.full(len(column), -1)
        if not _is_list(type_):
            raise DataError(f"column {name!r} holds {type_}, in {self.where} it holds lists", where=where)
        _check_number(name, type_.value_type, where)
        if pa.types.is_fixed_size_list(type_) and type_.list_size != self.dim:
            raise DataError(
                f"the vectors of column {name!r} have {type_.list_size} numbers, in {self.where} they have {self.dim}",
                where=where,
            )
        lists = whole(column)
        width_N = pc.fill_null(pc.list_value_length(lists), -1).to_numpy(zero_copy_only=False)
        fits_N = width_N == self.dim
        values_ND[fits_N] = _floats(pc.list_flatten(lists.filter(pa.array(fits_N)))).reshape(-1, self.dim)
        return values_ND, width_N

    def _not_finite(self, table: pa.Table, row: int, position: int) -> str:
        """What is wrong with a number that is not finite."""
        if self.is_list:
            return f"number {position + 1} of the vector is not finite"
        name = self.columns[position]
        return f"{table[name][row].as_py()!r} in column {name!r} is not a finite number"


def _is_list(type_: pa.DataType) -> bool:
    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_))


def _check_number(column: str, type_: pa.DataType, where: str, *, or_text: bool = False) -> None:
    """Raise DataError for a column that can hold no numbers; text may, in files in which every cell is text."""
    types = pa.types
    tests = [types.is_integer, types.is_floating, types.is_boolean, types.is_null, types.is_decimal]
    if not any(test(type_) for test in tests) and not (or_text and is_text(type_)):
        raise DataError(f"column {column!r} holds {type_}, not numbers", where=where)


def _floats(values: pa.Array | pa.ChunkedArray) -> NDArray[np.float32]:
    """Numbers, or texts of numbers, as float32; NaN for null and other texts, infinite beyond float32."""
    if is_text(values.type):
        numbers = numbers_in(pd.Series(values.to_pylist(), dtype=object))
    else:
        numbers = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        return np.asarray(numbers, dtype=np.float32)
