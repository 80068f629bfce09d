"""Cells that a spreadsheet would run as a formula: in a CSV file an apostrophe guards them, and reading removes it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

_BEGINS = re.compile("'*[=+@\t\r\n＝＋－＠-]")  # full-width signs begin a formula in some languages
_HARMLESS = re.compile(r"'*(?:[+-]?[\d.,]+(?:[eE][+-]?\d+)?%?|.)")  # numbers, and a sign alone


def guarded(cell: str) -> str:
    """The cell as it is written, so that no spreadsheet reads it as a formula."""
    return f"'{cell}" if _is_formula(cell) else cell


def unguarded(cell: str) -> str:
    """The input of `guarded`."""
    return cell[1:] if cell.startswith("'") and _is_formula(cell) else cell


def guarded_column(cells: pa.Array) -> pa.Array:
    """A column of texts by `guarded`."""
    return _mapped(cells, guarded)


def unguarded_column(cells: pa.Array) -> pa.Array:
    """A column of texts by `unguarded`."""
    return _mapped(cells, unguarded)


def guarded_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """A copy of a frame with all texts and column names by `guarded`."""
    frame = frame.set_axis([guarded(str(name)) for name in frame.columns], axis=1)
    for place, kind in enumerate(frame.dtypes):
        if not pd.api.types.is_numeric_dtype(kind):
            cells = frame.iloc[:, place].astype(object)
            frame.isetitem(place, cells.map(lambda cell: guarded(cell) if isinstance(cell, str) else cell))
    return frame


def _is_formula(cell: str) -> bool:
    return bool(_BEGINS.match(cell)) and not _HARMLESS.fullmatch(cell)


def _mapped(cells: pa.Array, change: Callable[[str], str]) -> pa.Array:
    """The column with the cells changed that may be formulas, which are few."""
    may_be = pc.fill_null(pc.match_substring_regex(cells, f"^{_BEGINS.pattern}"), False)
    if not pc.any(may_be).as_py():
        return cells
    changed = pa.array(map(change, cells.filter(may_be).to_pylist()), cells.type)
    return pc.replace_with_mask(cells, may_be, changed)
