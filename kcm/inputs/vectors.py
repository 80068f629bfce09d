"""Vectors: of one row, from a list of numbers in one column or from one column per number; and of many rows.

Shapes: N rows, D numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Sized
from fnmatch import fnmatchcase
from numbers import Number
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from kcm.inputs.content import PartError

_MAGIC = re.compile(r"[*?[]")
_THOUSANDS = re.compile(r"\s*[-+]?\d{1,3}(,\d{3})+(\.\d*)?\s*")
FEATURES = "features"  # the name of a vector without named columns


def matching(columns: Iterable[str], patterns: Sequence[str]) -> tuple[str, ...]:
    """The columns that match the patterns, such as f1 or pixel_*: by pattern, then in the order of the columns.

    A pattern that equals the name of a column matches this column only.
    """
    names = dict.fromkeys(columns)
    matches: dict[str, None] = {}
    for pattern in patterns:
        if pattern in names:  # a set, because a table may have thousands of columns
            matches[pattern] = None
        elif _MAGIC.search(pattern):
            matches |= dict.fromkeys(name for name in names if fnmatchcase(name, pattern))
    return tuple(matches)


def numbers_in(cells: pd.Series) -> NDArray[np.float64]:
    """Cells as numbers, NaN otherwise. Texts may have surrounding spaces and thousands separators: 1,234.5."""
    if not pd.api.types.is_numeric_dtype(cells):
        plain = [_without_separators(cell) if isinstance(cell, str | Number) else None for cell in cells]
        cells = pd.to_numeric(pd.Series(plain, dtype=object), errors="coerce")
    return cells.to_numpy(np.float64, na_value=np.nan)


def _without_separators(cell: Any) -> Any:
    return cell.replace(",", "") if isinstance(cell, str) and _THOUSANDS.fullmatch(cell) else cell


def vector_in(row: Mapping[Any, Any], patterns: Sequence[str]) -> NDArray[np.float32] | None:
    """The vector of a row, float32 [D], from the matching columns, or else from `FEATURES`; None if there is none.

    Raises PartError for a value that is not a vector of finite numbers.
    """
    cells = {str(name): cell for name, cell in row.items()}
    names = matching(cells, patterns) or tuple(name for name in (FEATURES,) if name in cells)
    values: Any = [_without_separators(cells[name]) for name in names]
    if len(values) == 1 and (values[0] is None or (isinstance(values[0], Sized) and not isinstance(values[0], str))):
        values = values[0]
    return None if values is None or not len(values) else vector_of(values)


def vector_of(values: ArrayLike) -> NDArray[np.float32]:
    """Numbers as float32 [D]. Raises PartError for a value that is not a list of finite numbers."""
    try:
        with np.errstate(over="ignore"):
            vector_D = np.asarray(values, dtype=np.float64).astype(np.float32)
    except (TypeError, ValueError):
        raise PartError("the vector is not a list of numbers") from None
    if vector_D.ndim != 1:
        raise PartError("the vector is not a list of numbers")
    if not np.isfinite(vector_D).all():
        raise PartError("the vector holds a number that is not finite")
    return vector_D


def list_column(values_ND: np.ndarray) -> pa.FixedSizeListArray:
    """A float matrix [N, D] as a column of lists."""
    values = np.ascontiguousarray(values_ND)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def matrix(column: pa.ChunkedArray) -> np.ndarray:
    """A column of equally long float lists as a float32 matrix [N, D]: the inverse of `list_column`."""
    values = column.combine_chunks()
    width = values.type.list_size
    flat: np.ndarray = values.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(-1, width).astype(np.float32)  # a copy: Arrow's own memory is read-only
