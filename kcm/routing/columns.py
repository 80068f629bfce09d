"""A user's table: columns by name, cells as numbers, booleans and strings.

Errors name the rows that cannot be read.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from kcm.errors import DataError
from kcm.inputs.tables import missing_column
from kcm.routing.config import RouteColumns

_TRUTHS = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}
_WHOLE = re.compile(r"[-+]?\d+(\.0*)?")
_SHOWN = 3


def check_columns(frame: pd.DataFrame, columns: RouteColumns, where: str) -> None:
    """Raise DataError for a named column that the table lacks, with the nearest name, and for equal column names."""
    if not frame.columns.is_unique:
        name = frame.columns[frame.columns.duplicated()][0]
        raise DataError(f"several columns are called {name!r}", where=where, hint="Rename all but one of them")
    for field, column in columns.named.items():
        if column not in frame.columns:
            raise missing_column(column, field, list(frame.columns), where)


class Cells:
    """The columns of one table; messages use `row_names` [N] for its rows."""

    def __init__(self, frame: pd.DataFrame, row_names: NDArray[np.object_], where: str) -> None:
        self._frame, self._row_names, self._where = frame, row_names, where

    def strings(self, column: str) -> NDArray[np.object_]:
        """The text of every cell without surrounding space, [N]; None if it is empty."""
        texts = self._frame[column].astype(object).map(lambda cell: str(cell).strip(), na_action="ignore")
        return np.array([None if pd.isna(text) or not text else text for text in texts], dtype=object)

    def labels(self, column: str) -> NDArray[np.object_]:
        """As `strings`, but whole numbers such as 1.0, 2.0 lose the decimals, which many tools add at gaps."""
        values = self.strings(column)
        if all(value is None or _WHOLE.fullmatch(value) for value in values):
            return np.array([value and value.partition(".")[0] for value in values], dtype=object)
        return values

    def required(self, column: str, values: NDArray[np.object_], purpose: str) -> NDArray[np.object_]:
        """`values` of a column; DataError if one is empty."""
        self.refuse(column, pd.isna(values), values, f"{purpose} is missing")
        return values

    def numbers(self, column: str, purpose: str, low: float = -np.inf, high: float = np.inf) -> NDArray[np.float64]:
        """Finite numbers in [low, high], float64 [N]."""
        cells = self._frame[column]
        values = self._parse(cells)
        self.refuse(column, np.isnan(values), cells, f"{purpose} must be a number")
        self.refuse(column, np.isinf(values), cells, f"{purpose} must be finite")
        bounds = f"must lie in [{low:g}, {high:g}]" if np.isfinite(high) else f"must be at least {low:g}"
        self.refuse(column, (values < low) | (values > high), cells, f"{purpose} {bounds}")
        return values

    def truths(self, column: str) -> NDArray[np.bool_]:
        """Correctness, bool [N], from true/false, yes/no or 0/1."""
        cells = self._frame[column]
        values = self._parse(cells)
        rule = "correctness must be 0 or 1, true or false"
        self.refuse(column, ~np.isin(values, (0.0, 1.0)), cells, rule, "Compare scores with a threshold first")
        return np.asarray(values == 1.0)

    def refuse(self, column: str, bad: ArrayLike, values: Any, rule: str, hint: str = "") -> None:
        """Raise a DataError that names the first bad rows and their values."""
        rows = np.flatnonzero(np.asarray(bad))
        if len(rows) == 0:
            return
        cells = np.asarray(values, dtype=object)
        examples = "; ".join(f"{self._row_names[row]}: {_format(cells[row])}" for row in rows[:_SHOWN])
        remainder = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
        raise DataError(f"{rule}: {examples}{remainder}", where=f"{self._where}, column {column!r}", hint=hint)

    @staticmethod
    def _parse(cells: pd.Series[Any]) -> NDArray[np.float64]:
        """Numbers and truth values as float64; NaN for any other cell."""
        if pd.api.types.is_bool_dtype(cells.dtype) or pd.api.types.is_numeric_dtype(cells.dtype):
            return np.asarray(cells.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan))
        words = cells.astype(object).map(lambda cell: str(cell).strip().lower(), na_action="ignore")
        truths = words.map(_TRUTHS).to_numpy(dtype=np.float64, na_value=np.nan)
        numbers = pd.to_numeric(words, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        return np.asarray(np.where(np.isnan(truths), numbers, truths))


def _format(value: Any) -> str:
    return "empty" if value is None or pd.isna(value) or value == "" else repr(value)[:80]
