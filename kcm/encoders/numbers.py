"""Numeric features written as text, so that numeric tables are processed as texts are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from kcm.inputs.content import TEXT, Content, Part

IDENTITY = "numbers"


class NumbersEncoder:
    """Reads what `numbers_text` wrote; `dim` is the number of features."""

    identity = IDENTITY
    reads: frozenset[Part] = TEXT

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def read(self, content: Content) -> Content:
        """The content itself: there is nothing to decode."""
        return content

    def encode(self, inputs: Sequence[Content]) -> np.ndarray:
        """Float32 [N, dim], as they are: no scaling."""
        return np.array([content.text.split() for content in inputs], dtype=np.float32).reshape(-1, self.dim)


def numbers_text(vectors: pa.ChunkedArray) -> pa.Array:
    """The numbers of each vector, separated by blanks, as short as they can be read back; "" for a missing vector."""
    return pa.array([" ".join(str(np.float32(number)) for number in row or ()) for row in vectors.to_pylist()])
