"""Parquet files that tell where they are damaged: every page is written with a checksum, and read against it.

A file that is fetched as a whole is held against its hash; of one that is read by ranges only its pages can be. A
footer has no checksum: most damage to it leaves a file that cannot be read.
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
    """A writer of a file; `options` are those of pyarrow."""
    return pq.ParquetWriter(path, schema, write_page_checksum=True, **options)


def write_table(table: pa.Table, path: Path, **options: Any) -> None:
    """Write a file; `options` are those of pyarrow."""
    pq.write_table(table, path, write_page_checksum=True, **options)


def read_table(
    source: Path | BinaryIO, *, columns: Sequence[str] | None = None, where: pc.Expression | None = None
) -> pa.Table:
    """The columns of the rows of which `where` is true. ArtefactError for what cannot be read, or is damaged."""
    with sound(source):
        return pq.read_table(source, columns=columns, filters=where, page_checksum_verification=True)


def open_file(source: Path | BinaryIO, **options: Any) -> pq.ParquetFile:
    """A file, of which row groups are read within `sound`. ArtefactError for one that cannot be read."""
    with sound(source):
        return pq.ParquetFile(source, page_checksum_verification=True, **options)


@contextmanager
def sound(source: Path | BinaryIO) -> Iterator[None]:
    """A block that reads from a file: ArtefactError, with the name of the file, where that is not possible."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise ArtefactError(
            f"the file cannot be read: {' '.join(str(error).split())}",
            where=str(source if isinstance(source, Path) else source.name),
            hint="Put the file back, or remove the folder of its artefact, and start again",
        ) from None
