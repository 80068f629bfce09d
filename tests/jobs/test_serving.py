"""Which bundle is served: the champion of the run, any registered version, or a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from jobs.serving import Site, served_model
from kcm.config import load_config
from kcm.errors import ConfigError, KcmError
from pipelines.config import RunConfig
from pipelines.serve.deploy.app import application

REVIEWS = Path(__file__).parents[2] / "jobs" / "configs" / "reviews.yaml"


@pytest.fixture
def config(registry: RunConfig) -> RunConfig:
    return registry


def test_without_a_name_the_champion_of_the_run_is_served(config: RunConfig) -> None:
    served = served_model(config, None)
    assert served.version == "reviews/2"
    assert (served.bundle / "bundle.json").read_text() == "second"


def test_any_version_can_be_asked_for(config: RunConfig) -> None:
    served = served_model(config, "reviews/1")
    assert served.version == "reviews/1"
    assert (served.bundle / "bundle.json").read_text() == "first"


def test_a_version_is_downloaded_once(config: RunConfig) -> None:
    folder = served_model(config, "reviews@champion").bundle
    (folder / "mark").touch()
    assert (served_model(config, "reviews@champion").bundle / "mark").exists()
    assert [path.name for path in folder.parent.glob(".*")] == []


def test_a_download_that_fails_leaves_nothing_behind(config: RunConfig) -> None:
    shutil.rmtree(config.storage_path / "served", ignore_errors=True)
    with pytest.raises(KcmError, match="no registered model 'reviews/9'"):
        served_model(config, "reviews/9")
    assert not (config.storage_path / "served" / "reviews" / "9").exists()


def test_an_alias_that_points_nowhere_is_an_error(config: RunConfig) -> None:
    with pytest.raises(KcmError, match="no registered model 'reviews@runner-up'"):
        served_model(config, "reviews@runner-up")


def test_feedback_is_kept_beside_the_run_unless_a_place_is_configured(config: RunConfig) -> None:
    assert Site.of(config).serve.feedback.url == f"sqlite:///{config.storage_path}/feedback.db"
    elsewhere = load_config(RunConfig, REVIEWS, ["serve.feedback.url=sqlite:////elsewhere.db"])
    assert Site.of(elsewhere).serve.feedback.url == "sqlite:////elsewhere.db"


def test_a_deployment_file_is_checked_like_any_configuration() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'serve\.num_replicas'"):
        application({"bundle": "b", "assets_path": "a", "serve": {"num_replica": 2}})
