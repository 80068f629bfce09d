"""Numeric features written as text, so that numeric tables are processed as texts are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np

from kcm.errors import DataError
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


def numbers_text(row: Mapping[str, object], columns: Sequence[str], where: str) -> str:
    """The numbers of `columns`, separated by blanks. Raises DataError, naming the column, for what is no number."""
    numbers = []
    for column in columns:
        value = row.get(column)
        try:
            number = float(value)  # type: ignore[arg-type]  # whatever float does not take is the error
        except (TypeError, ValueError):
            number = np.nan
        if not np.isfinite(number):
            raise DataError(f"{value!r} in column {column!r} is not a finite number", where=where)
        numbers.append(repr(number))
    return " ".join(numbers)


def matching_columns(columns: Sequence[str], patterns: Sequence[str], where: str) -> tuple[str, ...]:
    """The columns that match any of the patterns, such as pixel_*, in the table's order; DataError for none."""
    for pattern in patterns:
        if not any(fnmatchcase(column, pattern) for column in columns):
            raise DataError(f"no column matches {pattern!r}", where=where, mend=f"Columns are {', '.join(columns[:8])}")
    return tuple(column for column in columns if any(fnmatchcase(column, pattern) for pattern in patterns))
