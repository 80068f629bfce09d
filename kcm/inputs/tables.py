"""Tables in files (CSV, TSV, Parquet) read whole; a damaged file is refused with the reason.

Cells of a CSV or TSV file stay text, so that a label "NA" and an id "007" stay as they are; missing cells of a short
row are empty. `kcm.inputs.rowfile` reads a chunk at a time and reports faults per row.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kcm.errors import DataError

_ROWS_AT_ONCE = 10_000  # that are in memory in both forms when a file becomes records
_SHOWN = 20  # columns that a message lists


@contextmanager
def readable(path: Path, kinds: Collection[str]) -> Iterator[None]:
    """A block that reads `path`; errors become a DataError with the reason.

    A file that is missing, of another suffix than `kinds`, not UTF-8, or not what its suffix says is refused.
    """
    if path.suffix.lower() not in kinds:
        raise DataError(f"unknown kind of file {path.suffix!r}", where=str(path), mend=f"Use {', '.join(kinds)}")
    if not path.is_file():
        raise DataError("no such file", where=str(path))
    try:
        yield
    except UnicodeDecodeError:
        raise DataError("the file is not UTF-8", where=str(path), mend="Convert it, for example with iconv") from None
    except pd.errors.EmptyDataError:
        raise DataError("the file is empty", where=str(path)) from None
    except RecursionError:
        raise DataError("cannot read the file: a value is nested too deeply", where=str(path)) from None
    except (OSError, ValueError, pa.ArrowException) as error:  # pandas' and json's parse errors are ValueErrors
        raise DataError(f"cannot read the file: {' '.join(str(error).split())}", where=str(path)) from None


def read_frame(path: Path, kinds: Collection[str]) -> pd.DataFrame:
    """The whole table as a frame. Raises DataError as `readable` does."""
    with readable(path, kinds):
        if path.suffix.lower() == ".parquet":
            return pq.read_table(path).to_pandas()
        return pd.read_csv(path, **_text(path))


def read_records(path: Path) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
    """Names of the columns, and every row as a mapping; to be called within `readable`."""
    if path.suffix.lower() == ".parquet":
        with pq.ParquetFile(path) as file:
            batches = file.iter_batches(batch_size=_ROWS_AT_ONCE)
            return tuple(file.schema_arrow.names), [row for batch in batches for row in batch.to_pylist()]
    names: tuple[str, ...] = ()
    rows: list[dict[str, Any]] = []
    with pd.read_csv(path, chunksize=_ROWS_AT_ONCE, **_text(path)) as frames:
        for frame in frames:
            names = tuple(map(str, frame.columns))
            rows += frame.to_dict("records")
    return names, rows


def missing_column(column: str, field: str, names: Sequence[str], where: str) -> DataError:
    """The error for a `column`, of the option `field`, that is not in `names`; it gives the nearest name."""
    if len(names) == 1 and (other := next((mark for mark in ";\t|" if mark in names[0]), None)):
        return DataError(
            f"there is a single column, {names[0][:60]!r}",
            where=where,
            mend=f"Its cells seem to be separated by {other!r}: write them with commas, or with tabs as .tsv",
        )
    nearest = difflib.get_close_matches(column, names, n=1, cutoff=0.0)
    shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    hint = f"Did you mean {nearest[0]!r}? " if nearest else ""
    return DataError(
        f"there is no column {column!r} ({field})", where=where, mend=f"{hint}The columns are {shown or 'none'}"
    )


def _text(path: Path) -> dict[str, Any]:
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    return {"dtype": str, "keep_default_na": False, "sep": separator, "encoding": "utf-8-sig"}
