"""Vectors: of one row, from a list of numbers in one column or from columns with a number each; and of many rows.

Shapes: N rows, D numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from kcm.inputs.content import PartError

FEATURES = "features"  # what a vector is called where its columns are not


def vector_in(row: Mapping[Any, Any], patterns: Sequence[str]) -> NDArray[np.float32] | None:
    """The vector of a row, float32 [D], from the columns that match, else from `FEATURES`; None where it has none.

    Raises PartError for what is no vector of finite numbers.
    """
    names = [name for name in row if any(fnmatchcase(str(name), pattern) for pattern in patterns)]
    names = names or [name for name in (FEATURES,) if name in row]
    values = [row[name] for name in names]
    if len(values) == 1 and not isinstance(values[0], int | float | str):
        values = values[0]
    return None if values is None or not len(values) else vector_of(values)


def vector_of(values: ArrayLike) -> NDArray[np.float32]:
    """Numbers as float32 [D]. Raises PartError for what is no list of numbers, and a number that is not finite."""
    try:
        with np.errstate(over="ignore"):
            vector_D = np.asarray(values, dtype=np.float64).astype(np.float32)
    except (TypeError, ValueError):
        raise PartError("the vector is no list of numbers") from None
    if vector_D.ndim != 1:
        raise PartError("the vector is no list of numbers")
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
