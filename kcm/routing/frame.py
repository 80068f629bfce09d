"""A user's file of logged answers as a frame of the columns that are needed, every cell of a CSV file still text."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kcm.errors import DataError
from kcm.routing.config import RouteColumns

SUFFIXES = (".csv", ".tsv", ".parquet")


def read_frame(path: Path) -> pd.DataFrame:
    """Read the whole file. Raises DataError for a file that is missing, empty, of another kind, or not readable."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"unknown kind of file {path.suffix!r}", where=str(path), mend=f"Use {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise DataError("no such file", where=str(path))
    try:
        frame = pq.read_table(path).to_pandas() if suffix == ".parquet" else _read_text(path, suffix)
    except UnicodeDecodeError:
        raise DataError("the file is not UTF-8", where=str(path), mend="Convert it, for example with iconv") from None
    except (OSError, ValueError, pa.ArrowException) as error:  # pandas' parse errors are ValueErrors
        raise DataError(f"cannot read the file: {' '.join(str(error).split())}", where=str(path)) from None
    frame.columns = pd.Index([str(name) for name in frame.columns])
    if twice := sorted(frame.columns[frame.columns.duplicated()]):
        raise DataError(f"the column {twice[0]!r} occurs twice", where=str(path))
    if frame.empty:
        raise DataError("the file holds no rows", where=str(path))
    return frame.reset_index(drop=True)


def check_columns(frame: pd.DataFrame, columns: RouteColumns, where: str) -> None:
    """Raise DataError for a named column that the table lacks, with the nearest that it has."""
    for field, column in columns.named.items():
        if column not in frame.columns:
            raise _absent(column, field, list(frame.columns), where)


def feature_columns(frame: pd.DataFrame, patterns: Iterable[str], where: str) -> list[str]:
    """The columns that `patterns` stand for, each once, in the order of the patterns and then of the table."""
    names: dict[str, None] = {}
    for pattern in patterns:
        prefix, star, _ = pattern.partition("*")
        found = [name for name in frame.columns if (name.startswith(prefix) if star else name == pattern)]
        if not found:
            raise _absent(pattern, "features", list(frame.columns), where)
        names |= dict.fromkeys(found)
    return list(names)


def _read_text(path: Path, suffix: str) -> pd.DataFrame:
    # Cells stay text, so that no label "NA" gets lost and no id "007" becomes a number.
    separator = "\t" if suffix == ".tsv" else ","
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False, sep=separator, encoding="utf-8-sig")
    except pd.errors.EmptyDataError:
        raise DataError("the file is empty", where=str(path)) from None


def _absent(column: str, field: str, names: Sequence[str], where: str) -> DataError:
    if len(names) == 1 and (other := next((mark for mark in ";\t|" if mark in names[0]), None)):
        return DataError(
            f"there is a single column, {names[0][:60]!r}",
            where=where,
            mend=f"Its cells seem to be separated by {other!r}: write them with commas, or with tabs as .tsv",
        )
    nearest = difflib.get_close_matches(column, names, n=1, cutoff=0.0)
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    hint = f"Did you mean {nearest[0]!r}? " if nearest else ""
    return DataError(
        f"there is no column {column!r} ({field})", where=where, mend=f"{hint}The columns are {shown or 'none'}"
    )
