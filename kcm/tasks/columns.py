"""Vectors of rows as a column of an Arrow table, and back. Shapes: N rows, D numbers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


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
