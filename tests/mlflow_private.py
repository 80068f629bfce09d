"""Every use that tests make of private parts of MLflow: a new registry is a copy of the session's first one.

MLflow makes the tables of a new database by all migrations that it ever had: more than a second of work, and some
hundred writes that wait for the disk. The first database of a process is made so, and each further one copied.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def _copied_registries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Databases that hold anything, and those of a server, are left to MLflow."""
    if "mlflow" not in sys.modules:  # no test of this session was collected that needs it
        yield
        return
    from mlflow.store.db import utils

    first, made = tmp_path_factory.mktemp("registry") / "first.db", utils._initialize_tables

    def initialize(engine: Any) -> None:
        file = engine.url.database if engine.dialect.name == "sqlite" else None
        if not file or not utils._is_empty_database(engine):
            made(engine)
        elif first.exists():
            _copy(first, Path(file))
        else:
            made(engine)
            _copy(Path(file), first)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "_initialize_tables", initialize)
        yield


def _copy(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as from_there, closing(sqlite3.connect(target)) as to_here:
        from_there.backup(to_here)
