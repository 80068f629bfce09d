"""What a run leaves for people is part of its storage, however it ends; what a service leaves beside it is not."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from kcm.config import load_config
from kcm.errors import DataError
from pipelines import run as module
from pipelines.config import RunConfig
from pipelines.run import run_context
from pipelines.store.files import Files, StorageError
from pipelines.store.storage import Storage

CONFIG = Path(__file__).parents[2] / "jobs/configs/reviews.yaml"


@pytest.fixture
def config(node_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.setattr(module, "connected", lambda cluster: nullcontext())
    databases = [f"tracking.uri=sqlite:///{tmp_path}/mlflow.db", f"serve.feedback.url=sqlite:///{tmp_path}/log.db"]
    return load_config(RunConfig, CONFIG, [f"storage_path={node_bucket}", *databases])


def fail(config: RunConfig) -> None:
    """A run that lists its bad rows and stops; the service of the same run goes on beside it."""
    with run_context(config, []) as context:
        (context.run_folder / "bad_rows.csv").write_text("id,reason")
        (context.run_folder / "service").mkdir()
        (context.run_folder / "service" / "token").write_text("secret")
        raise DataError("too many bad rows")


def test_a_run_that_fails_keeps_its_bad_rows_and_no_token(config: RunConfig) -> None:
    with pytest.raises(DataError, match="too many"):
        fail(config)
    names = [stat.name for stat in Files.at(config.storage_path).list("runs")]
    assert names == ["runs/reviews/bad_rows.csv"]


def test_what_stopped_a_run_is_raised_where_its_results_cannot_be_kept(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(storage: Storage, path: Path) -> None:
        raise StorageError("the credentials are refused: ExpiredToken")

    monkeypatch.setattr(Storage, "keep", refused)
    with pytest.raises(DataError, match="too many"):
        fail(config)
    with pytest.raises(StorageError, match="ExpiredToken"), run_context(config, []):
        pass


def test_answers_that_are_paid_for_are_kept_in_the_log_of_a_run_whose_storage_is_a_bucket(config: RunConfig) -> None:
    with run_context(config, []) as context:
        assert context.responses is not None
        assert (context.responses.url, context.responses.prefix) == (config.serve.feedback.url, "paid_")
