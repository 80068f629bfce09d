"""The log as a Parquet file, in the columns of a window."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from kcm.durable import replace_durably
from kcm.errors import KcmError
from pipelines.serve.log.reading.window import WINDOW, LogReader


def export(log: LogReader, application: str, file: Path, after: int, upto: int) -> int:
    """Write the decisions with after < number <= upto to a file, which appears whole or not at all; how many they are.

    Raises KcmError where the file cannot be written.
    """
    number = 0
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".") as folder:
            draft = Path(folder) / file.name
            with pq.ParquetWriter(draft, WINDOW, compression="zstd") as writer:
                for batch in log.batches(application, after, upto):
                    writer.write_batch(batch)
                    number += batch.num_rows
            replace_durably(draft, file)
    except (OSError, pa.ArrowException) as error:
        raise KcmError(
            f"the log cannot be written out: {error}", where=str(file), hint="See whether there is room"
        ) from error
    return number
