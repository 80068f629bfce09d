"""Whole tables in memory, for those of a size that a person looks at, and what to say of a column that is missing."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa

from kcm.errors import DataError
from kcm.inputs.chunks import read_chunks, readable
from kcm.inputs.location import Location

_SHOWN = 20  # columns that a message lists


def read_frames(path: str | Path, kinds: Collection[str]) -> Iterator[pd.DataFrame]:
    """The table of a file of one of `kinds`, some thousand rows at a time. Raises what `read_frame` raises."""
    return (table.to_pandas() for table in _tables(path, kinds))


def read_frame(path: str | Path, kinds: Collection[str]) -> pd.DataFrame:
    """The whole table of a file of one of `kinds`, such as .csv.

    Raises DataError as `read_chunks` does, and for a row that has more fields than the header.
    """
    return pa.concat_tables(_tables(path, kinds), promote_options="permissive").to_pandas()


def _tables(path: str | Path, kinds: Collection[str]) -> Iterator[pa.Table]:
    location = Location.of(path)
    is_empty = True
    with readable(location, kinds):
        for chunk in read_chunks(location):
            for position, fault in chunk.faults.items():
                raise ValueError(f"row {chunk.first + position}: {fault}")
            is_empty = False
            yield chunk.table
        if is_empty:
            raise DataError("the file is empty", where=str(location))


def missing_column(column: str, field: str, names: Sequence[str], where: str) -> DataError:
    """The error for a `column`, of the option `field`, that is not in `names`; it gives the nearest name."""
    nearest = difflib.get_close_matches(column, names, n=1, cutoff=0.0)
    shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    hint = f"Did you mean {nearest[0]!r}? " if nearest else ""
    return DataError(
        f"there is no column {column!r} ({field})", where=where, hint=f"{hint}The columns are {shown or 'none'}"
    )
