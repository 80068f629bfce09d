"""The commands as functions: a configuration is a file, or what would stand in one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs import verbs
from kcm.config import load_config
from kcm.errors import ConfigError
from pipelines.config import RunConfig
from pipelines.serve.release import Release
from pipelines.serve.sources import Source

REVIEWS = Path(__file__).parents[2] / "jobs" / "configs" / "reviews.yaml"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the pipeline was asked for."""
    seen: list[Any] = []

    def run(config: RunConfig, until: str | None = None, **_: Any) -> dict[str, Any]:
        seen.append((config, until))
        return {"name": config.name}

    monkeypatch.setattr(verbs, "run_stages", run)
    return seen


def test_a_run_takes_a_file_a_mapping_and_a_configuration(asked: list[Any]) -> None:
    expected = load_config(RunConfig, REVIEWS)
    for given in (REVIEWS, str(REVIEWS), yaml.safe_load(REVIEWS.read_text()), expected):
        assert verbs.run(given, until="tasks") == {"name": "reviews"}
    assert asked == [(expected, "tasks")] * 4


def test_overrides_change_a_file_alone(asked: list[Any]) -> None:
    verbs.run(REVIEWS, ["train.num_epochs=3"])
    assert asked[0][0].train.num_epochs == 3
    with pytest.raises(ConfigError, match="overrides need a file"):
        verbs.run({"name": "x"}, ["train.num_epochs=3"])
    with pytest.raises(ConfigError, match="unknown key 'tusks'"):
        verbs.run({"name": "x", "tusks": {}})


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was served, and that it stopped."""
    seen: list[Any] = []

    @contextmanager
    def serving(source: Source, settings: Any) -> Iterator[str]:
        seen.append((source.first(), settings.assets_path))
        yield "http://here"
        seen.append("stopped")

    monkeypatch.setattr(verbs, "serving", serving)
    monkeypatch.setattr("jobs.work.service.require_servable", lambda *_: None)
    model = lambda config, name: Release(version=str(name), bundle=Path("/m"))  # noqa: E731
    monkeypatch.setattr("jobs.models.served_model", model)
    monkeypatch.setattr("jobs.models.served_folder", lambda bundle: Release(version="folder", bundle=bundle))
    return seen


def test_a_service_lives_as_long_as_its_block(served: list[Any]) -> None:
    config = load_config(RunConfig, REVIEWS)
    with verbs.serve(config, model="reviews@champion") as url:
        assert url == "http://here"
        assert served == [(Release(version="reviews@champion", bundle=Path("/m")), config.assets_path)]
    assert served[-1] == "stopped"
    with verbs.serve(bundle="/b"):
        assert served[-1][0] == Release(version="folder", bundle=Path("/b"))
