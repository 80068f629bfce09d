"""Outcome tables in files, as `evaluate` writes them."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from kcm.cascade.outcome_rows import OutcomeTable


def read_outcomes(path: Path) -> OutcomeTable:
    """The table that was written to a file by `to_arrow`."""
    table = pq.read_table(path)
    names = json.loads(table.schema.metadata[b"label_names"])
    columns = {name: table[name].to_numpy() for name in table.column_names}
    matrices = {name: np.stack(cells) for name, cells in columns.items() if name.endswith(("logits", "probabilities"))}
    return OutcomeTable(label_names=tuple(names), **columns | matrices)


def rows_where(table: OutcomeTable, **wanted: str) -> OutcomeTable:
    """The rows of one split or task, or of both."""
    return table.select(np.all([getattr(table, column) == value for column, value in wanted.items()], axis=0))
