"""The different texts of a table: equal ones are asked once, and count as often as they occur."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kcm.errors import DataError
from kcm.inputs.tables import missing_column
from kcm.tasks.readers.guess import guess_columns


def column_of(frame: pd.DataFrame, column: str, option: str) -> pd.Series:
    """The cells of the column that `option` names. Raises DataError if it is missing, or if two have this name."""
    names = [str(name) for name in frame.columns]
    if column not in names:
        raise missing_column(column, option, names)
    if names.count(column) > 1:
        hint = "Rename all but one of them"
        raise DataError(f"{names.count(column)} columns are called {column!r} ({option})", where="table", hint=hint)
    return frame.iloc[:, names.index(column)]


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts [U] of a frame's N rows; `unit_N` is the text of every row, -1 for a row without one."""

    column: str
    texts: tuple[str, ...]
    unit_N: NDArray[np.int64]

    @classmethod
    def of(cls, frame: pd.DataFrame, column: str | None = None) -> Texts:
        """The texts of a column, by default of the column that looks like texts.

        Raises DataError for what is no table, a table without rows or texts, and a column that cannot be used.
        """
        if not isinstance(frame, pd.DataFrame):
            hint = "Read the file by pd.read_csv, or give pd.DataFrame({'text': texts})"
            raise DataError(f"not a pandas DataFrame but a {type(frame).__name__}", where="table", hint=hint)
        if not len(frame):
            raise DataError("the table has no rows", where="table")
        if column is None and (column := guess_columns(frame).text) is None:
            shown = ", ".join(map(str, frame.columns[:20])) or "none"
            raise DataError("no column looks like texts", where="table", hint=f"Name one by --text: {shown}")
        cells = column_of(frame, column, "--text").astype("string").str.strip()
        empty_N = (cells.isna() | (cells == "")).to_numpy(dtype=bool)
        if empty_N.all():
            raise DataError(f"column {column!r} has no text", where="table", hint="Name another by --text")
        code_N, texts = pd.factorize(cells.mask(empty_N).to_numpy(dtype=object, na_value=None), use_na_sentinel=True)
        return cls(column, tuple(map(str, texts)), code_N.astype(np.int64))

    @property
    def copies_U(self) -> NDArray[np.int64]:
        """How many rows have each text."""
        return np.bincount(self.unit_N[self.unit_N >= 0], minlength=len(self.texts)).astype(np.int64)

    @property
    def num_empty(self) -> int:
        """Rows without a text, which get no label and no part in the promise."""
        return int((self.unit_N < 0).sum())

    def first_rows(self) -> NDArray[np.int64]:
        """The first row of every text, [U]."""
        rows = np.flatnonzero(self.unit_N >= 0)
        _, first = np.unique(self.unit_N[rows], return_index=True)
        return rows[first]
