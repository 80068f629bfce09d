"""Parquet files that detect damage: every page is written with a checksum and verified when it is read.

A file that is fetched completely is compared with its hash. If only ranges of a file are read, the page checksums are
the only check. A footer has no checksum, but most damage to it makes the file unreadable.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kcm.errors import ArtefactError


def open_writer(path: Path, schema: pa.Schema, **options: Any) -> pq.ParquetWriter:
    """A writer of a file, with pyarrow's `options`."""
    return pq.ParquetWriter(path, schema, write_page_checksum=True, **options)


def write_table(table: pa.Table, path: Path, **options: Any) -> None:
    """Write a file, with pyarrow's `options`."""
    pq.write_table(table, path, write_page_checksum=True, **options)


def read_table(
    source: Path | BinaryIO, *, columns: Sequence[str] | None = None, where: pc.Expression | None = None
) -> pa.Table:
    """The columns of the rows for which `where` is true. Raises ArtefactError for an unreadable or damaged file."""
    with sound(source):
        return pq.read_table(source, columns=columns, filters=where, page_checksum_verification=True)


def open_file(source: Path | BinaryIO, **options: Any) -> pq.ParquetFile:
    """An open file; read its row groups within `sound`. Raises ArtefactError if it cannot be read."""
    with sound(source):
        return pq.ParquetFile(source, page_checksum_verification=True, **options)


@contextmanager
def sound(source: Path | BinaryIO) -> Iterator[None]:
    """A block that reads from a file; failures become an ArtefactError with the file's name."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise ArtefactError(
            f"the file cannot be read: {' '.join(str(error).split())}",
            where=str(source if isinstance(source, Path) else source.name),
            hint="Put the file back, or remove the folder of its artefact, and start again",
        ) from None
