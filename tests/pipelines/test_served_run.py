"""The part of a run's configuration that serving reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from kcm.config import load_config
from kcm.errors import ConfigError
from pipelines.config import RunConfig
from pipelines.served_run import TRAINED_BY, ServedRun

CONFIGS = Path(__file__).parents[2] / "jobs" / "configs"


def test_every_key_of_a_run_is_known_to_serving() -> None:
    assert RunConfig.model_fields.keys() - ServedRun.model_fields.keys() == TRAINED_BY


@pytest.mark.parametrize("name", ["reviews", "openai"])
def test_serving_reads_what_a_run_reads(name: str) -> None:
    served, whole = (load_config(model, CONFIGS / f"{name}.yaml") for model in (ServedRun, RunConfig))
    assert {key: getattr(served, key) for key in ServedRun.model_fields} == {
        key: getattr(whole, key) for key in ServedRun.model_fields
    }


def test_a_key_that_no_run_has_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown key 'server', did you mean 'serve'"):
        load_config(ServedRun, CONFIGS / "reviews.yaml", ["server.port=1"])
