"""Cells as text: the same value gives the same text in every file format; missing cells; and formulas.

A spreadsheet would run a formula. In a CSV file an apostrophe guards it, and reading removes the apostrophe.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

MISSING = frozenset(
    {"NULL", "NaN", "None", "n/a", "nan", "null", "NA", "N/A", "<NA>", "#NA", "#N/A", "#N/A N/A", "-nan", "-NaN"}
    | {"1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"}
)
"""Texts that mark a missing value, as in pandas (`na_values` of `read_csv`)."""


def written(value: object) -> str | None:
    """A value as text: whole numbers as digits, nested values as JSON, NaN as null."""
    if value is None or value != value:  # only NaN differs from itself
        return None
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e16:
        return str(int(value))
    text = json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, dict | list) else str(value)
    # Lone surrogates, valid in JSON but not in UTF-8, are escaped.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def as_text(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column as text; each cell by `written`."""
    cells = whole(column) if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_nested(cells.type):
        return pa.array(map(written, cells.to_pylist()), pa.string())
    if is_text(cells.type) or pa.types.is_integer(cells.type) or pa.types.is_null(cells.type):
        return cells.cast(pa.string())
    codes = cells if pa.types.is_dictionary(cells.type) else cells.dictionary_encode()
    return pa.array(map(written, codes.dictionary.to_pylist()), pa.string()).take(codes.indices)


def whole(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array; `combine_chunks` may leave several of a type with small offsets."""
    cells = column.combine_chunks()
    return pa.concat_arrays(cells.chunks) if isinstance(cells, pa.ChunkedArray) else cells


def without_missing(cells: pa.Array, known: Collection[str] = ()) -> pa.Array:
    """Text cells, with null for white space and for the words in `MISSING` that are not `known` values."""
    texts = pc.utf8_trim_whitespace(cells)
    is_missing = pc.is_in(texts, pa.array(["", *(MISSING - {*known})], pa.string()))
    return pc.if_else(is_missing, None, cells)


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds strings."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


_BEGINS = re.compile("'*[=+@\t\r\n＝＋－＠-]")  # full-width signs begin a formula in some languages
_HARMLESS = re.compile(r"'*(?:[+-]?[\d.,]+(?:[eE][+-]?\d+)?%?|.)")  # numbers, and a sign alone


def guarded(cell: str) -> str:
    """The cell as it is written, so that no spreadsheet reads it as a formula."""
    return f"'{cell}" if _is_formula(cell) else cell


def unguarded(cell: str) -> str:
    """The input of `guarded`."""
    return cell[1:] if cell.startswith("'") and _is_formula(cell) else cell


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


def with_formulas(cells: pa.Array, change: Callable[[str], str]) -> pa.Array:
    """A column of texts with the cells changed, by `guarded` or `unguarded`, that may be formulas, which are few."""
    may_be = pc.fill_null(pc.match_substring_regex(cells, f"^{_BEGINS.pattern}"), False)
    if not pc.any(may_be).as_py():
        return cells
    changed = pa.array(map(change, cells.filter(may_be).to_pylist()), cells.type)
    return pc.replace_with_mask(cells, may_be, changed)
