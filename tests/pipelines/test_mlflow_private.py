"""What we read of MLflow's own tables is what its client says."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines._mlflow_private import aliased_in
from pipelines.tracking.config import CHAMPION, DIGEST_TAG, TrackingConfig
from pipelines.tracking.tracking import Tracking, set_champion


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a registry with two versions of `reviews`, the second one the champion."""
    root = tmp_path_factory.mktemp("registry")
    tracking = Tracking.open(TrackingConfig(), root, name="reviews", key="key")
    for content in ("first", "second"):
        bundle = root / content
        bundle.mkdir()
        (bundle / "bundle.json").write_text(content)
        tracking.register("reviews", bundle, content)
    set_champion(tracking.uri, "reviews", "2")
    tracking.close()
    return root / "mlflow.db"


def test_an_alias_is_read_as_mlflow_reads_it(registry: Path) -> None:
    client = MlflowClient(f"sqlite:///{registry}")
    for version in ("1", "2"):
        client.set_registered_model_alias("reviews", CHAMPION, version)
        registered = client.get_model_version_by_alias("reviews", CHAMPION)
        assert aliased_in(registry, "reviews", CHAMPION, DIGEST_TAG) == (version, registered.tags[DIGEST_TAG])
    client.delete_registered_model_alias("reviews", CHAMPION)
    assert aliased_in(registry, "reviews", CHAMPION, DIGEST_TAG) is None


def test_an_alias_of_a_version_that_was_deleted_names_nothing(registry: Path) -> None:
    client = MlflowClient(f"sqlite:///{registry}")
    client.set_registered_model_alias("reviews", "runner-up", "1")
    client.delete_model_version("reviews", "1")
    assert aliased_in(registry, "reviews", "runner-up", DIGEST_TAG) is None


def test_what_cannot_be_read_is_left_to_mlflow(registry: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    sqlite3.connect(other).close()
    assert aliased_in(other, "reviews", CHAMPION, DIGEST_TAG) is None
    assert aliased_in(tmp_path / "absent.db", "reviews", CHAMPION, DIGEST_TAG) is None
    assert not (tmp_path / "absent.db").exists()
    assert aliased_in(registry, "reviews", "nobody", DIGEST_TAG) is None
    set_champion(f"sqlite:///{registry}", "reviews", "2")
    assert aliased_in(registry, "reviews", CHAMPION, "no such tag") is None
