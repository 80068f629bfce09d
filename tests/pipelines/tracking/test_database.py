"""A registry in a file is made whole, once, and is one that MLflow goes on with."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest
from mlflow import MlflowClient

from pipelines.tracking.config import SQLITE
from pipelines.tracking.tracking import _without_runs, ensure_database


def test_a_new_file_is_there_with_all_its_tables_and_a_found_one_stays(tmp_path: Path) -> None:
    uri = f"{SQLITE}{tmp_path}/new/mlflow.db"
    ensure_database(uri)
    client = MlflowClient(uri)
    made = client.create_experiment("mine")
    ensure_database(uri)
    assert client.get_experiment(made).name == "mine"
    assert client.search_registered_models() == []
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["mlflow.db"]


def test_what_dies_while_tables_are_made_leaves_no_file(tmp_path: Path) -> None:
    _without_runs.cache_clear()
    dies = patch("pipelines.tracking.tracking.MlflowClient", side_effect=OSError("no space left"))
    with dies, pytest.raises(OSError, match="no space left"):
        ensure_database(f"{SQLITE}{tmp_path}/mlflow.db")
    assert list(tmp_path.iterdir()) == []


def test_a_server_s_database_is_left_to_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ensure_database("http://127.0.0.1:1")
    assert list(tmp_path.iterdir()) == []
