"""MLflow's database in a file: made whole, or not at all.

MLflow makes its tables one after the other, by all the migrations that it ever had. Killed in between it never gets
further: the first table is there already. So they are made elsewhere, once a process, and the file is copied.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from mlflow import MlflowClient

from kcm.durable import create_durably
from pipelines.tracking.config import SQLITE


def ensure_database(uri: str) -> None:
    """Create the file that a tracking URI of SQLite names, with all tables, where there is none; of many one succeeds.

    Any other URI is left to its server.
    """
    file = Path(uri.removeprefix(SQLITE))
    if uri.startswith(SQLITE) and not file.exists():
        create_durably(file, _without_runs())


@cache
def _without_runs() -> bytes:
    """A database with MLflow's tables."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mlflow.db"
        MlflowClient(f"{SQLITE}{file}").search_experiments(max_results=1)
        return file.read_bytes()
