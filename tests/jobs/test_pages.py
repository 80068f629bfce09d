"""The pages on commands and words are what commands and reports say, and Python's names are all on theirs."""

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

import kcm
from jobs.cli import app
from jobs.commands.reference import configuration_reference
from jobs.pages import commands_reference, measures_page, with_words
from pipelines.config import RunConfig

DOCS = Path(__file__).parents[2] / "docs"


def test_every_command_has_its_words() -> None:
    page = commands_reference()
    for name in ("run", "predict", "route certify"):
        assert f"# `kcm {name}`\n" in page
    assert "* `--promote / --no-promote`: Whether the version becomes the champion" in page


def test_words_and_measures_match_the_report() -> None:
    """A report explains its words as the docs do; `python -m jobs.pages` renews the page."""
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    assert with_words(page) == page
    assert "| Judge | " in page
    assert "| `call_rate` | Call rate | Share of inputs" in measures_page()


def test_python_page_lists_every_name_of_kcm() -> None:
    """Promise: every name of import kcm has its place on the page on python."""
    page = (DOCS / "python_reference.md").read_text(encoding="utf-8")
    for name in kcm.__all__:
        assert f"::: kcm.{name}\n" in page or name == "KcmError"
    for verb in ("run", "update", "serve"):
        assert f"::: jobs.verbs.{verb}\n" in page


CONFIGS = Path(__file__).parents[2] / "jobs" / "configs"


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
