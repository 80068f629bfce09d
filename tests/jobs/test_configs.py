"""Every example configuration can be loaded, and its prompts can work."""

from pathlib import Path

import pytest

from kcm.config import load_config
from pipelines.config import RunConfig
from pipelines.run import STAGES

# serve.yaml is not a run's: it is what `serve deploy` takes, and is tested where it is written.
CONFIGS = sorted(path for path in (Path(__file__).parents[2] / "jobs/configs").glob("*.yaml") if path.stem != "serve")


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_an_example_configuration_is_valid(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    config = load_config(RunConfig, path)
    for stage in STAGES:
        stage.of(config).check()


def test_there_is_an_example_of_every_way_to_a_large_model() -> None:
    adapters = {load_config(RunConfig, path).large.adapter for path in CONFIGS}
    assert adapters >= {"classifier", "openai", "recorded"}
