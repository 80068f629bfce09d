"""The reference and the schema of all configuration keys."""

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from jobs.cli import app
from jobs.commands.reference import configuration_reference
from pipelines.config import RunConfig

CONFIGS = Path(__file__).parents[3] / "jobs" / "configs"


@pytest.fixture(scope="module")
def reference() -> str:
    return configuration_reference(RunConfig)


def test_every_key_of_a_run_is_explained(reference: str) -> None:
    rows = [line for line in reference.splitlines() if line.startswith("| `")]
    assert len(rows) > 50
    assert [row for row in rows if row.endswith("|  |")] == []


def test_schema_accepts_shipped_files_and_no_misspelled_key() -> None:
    """Promise: the schema takes every shipped configuration and no misspelled key."""
    schema = json.loads(CliRunner().invoke(app, ["config", "--schema"]).stdout)
    validator = Draft202012Validator(schema)
    validator.check_schema(schema)
    shipped = {path.name: yaml.safe_load(path.read_text()) for path in CONFIGS.glob("*.yaml")}
    runs = {name: values for name, values in shipped.items() if "tasks" in values}
    assert len(runs) > 5
    for name, values in runs.items():
        assert [error.message for error in validator.iter_errors(values)] == [], name
    values = runs["openai.yaml"]
    assert not validator.is_valid(values | {"large": values["large"] | {"max_caller": 3}})
    assert not validator.is_valid(values | {"seeds": 3})
    assert validator.is_valid(values | {"large": {"adapter": "my_package.models:MyConfig", "anything": 1}})
