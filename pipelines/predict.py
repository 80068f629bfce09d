"""Batch prediction: a file of any size through the cascade, by Ray Data, from stream to stream.

One task reads the file chunk by chunk, a pool of actors answers, and the driver writes; nothing holds all of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.cluster import ClusterConfig
from pipelines.progress import Reporter

CHUNK_SIZE = 256  # rows that are read, answered and written together

# Column of the output, its type, and where it comes from in an answer.
ANSWERS = pa.schema(
    [
        ("id", pa.string()),
        ("label", pa.string()),
        ("confidence", pa.float64()),
        ("gate_score", pa.float64()),
        ("route", pa.string()),
        ("cost_s", pa.float64()),
        ("error", pa.string()),
    ]
)


def predict(
    bundle_folder: Path,
    input_path: Path,
    output_path: Path,
    text_column: str,
    *,
    task_column: str | None = None,
    cluster: ClusterConfig,
    assets_dir: Path,
    reporter: Reporter,
) -> dict[str, Any]:
    """Write the rows of `input_path`, in order and with all their columns, beside the cascade's answers.

    The format of either file is that of its suffix: .csv, .jsonl or .parquet. A row that cannot be answered has an
    `error` instead of an answer. An answer's column whose name the input has already is prefixed by `kcm_`; `id` is
    the input's own, where it has one, else the position of the row. Returns the number of rows by route.

    Raises DataError for an input that cannot be read, ArtefactError for a bundle that cannot be used and for an output
    that cannot be written.
    """
