"""The pages on commands and words are what commands and reports say, and Python's names are all on theirs."""

import json
from pathlib import Path
from typing import Literal

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import Field
from typer.testing import CliRunner

import kcm
from jobs.cli import app
from jobs.commands.reference import configuration_reference
from jobs.pages import commands_reference, glossary_page
from kcm.config import Config
from pipelines.config import RunConfig

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_what_the_commands_say() -> None:
    """Mend it with `python -m jobs.pages commands > docs/commands.md`."""
    assert (DOCS / "commands.md").read_text(encoding="utf-8") == commands_reference()


def test_every_command_has_its_words() -> None:
    page = commands_reference()
    for name in ("run", "predict", "route certify"):
        assert f"# `kcm {name}`\n" in page
    assert "* `--promote / --no-promote`: Whether the version becomes the champion" in page


def test_the_glossary_is_what_the_reports_say() -> None:
    """Mend it with `python -m jobs.pages glossary > docs/glossary.md`."""
    assert (DOCS / "glossary.md").read_text(encoding="utf-8") == glossary_page()
    assert "| Judge | Says how sure" in glossary_page()
    assert "| `call_rate` | Call rate | Share of inputs" in glossary_page()


def test_every_name_of_import_kcm_has_its_place_on_the_page_on_python() -> None:
    page = (DOCS / "python_reference.md").read_text(encoding="utf-8")
    for name in kcm.__all__:
        assert f"::: kcm.{name}\n" in page or name == "KcmError"
    for verb in ("run", "update", "serve"):
        assert f"::: jobs.verbs.{verb}\n" in page


PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
CONFIGS = Path(__file__).parents[2] / "jobs" / "configs"


class Pet(Config):
    """Any pet; of either kind."""

    name: str = Field("Rex", min_length=1)
    age: int = 1


class Cat(Pet):
    """A cat."""

    lives: int = Field(9, ge=1, le=9, description="Lives left | at most nine.")


class Dog(Pet):
    """A dog."""

    name: str = "Bello"
    tricks: tuple[str, ...] = Field(("sit",), min_length=1)


class Home(Config):
    """Where
    they live."""

    owner: str = Field(description="Who pays.")
    rent: float | None = Field(None, gt=0)
    colour: Literal["red", "blue"] = "red"
    pet: Cat | Dog = Cat(lives=3)
    guest: Cat | None = None


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return configuration_reference(Home).splitlines()


@pytest.mark.parametrize(
    "row",
    [
        "| `owner` | text | **required** | Who pays. |",
        "| `rent` | number > 0 or null | `null` |  |",
        "| `colour` | one of `red`, `blue` | `red` |  |",
        "| `tricks` | list of text (at least 1) | `[sit]` |  |",
        "| `lives` | integer ≥ 1 ≤ 9 | `9` | Lives left \\| at most nine. |",
        "| `pet` | section | `{lives: 3}` | One of the forms below. |",
        "| `guest` | section or null | `null` | A cat. |",
    ],
)
def test_a_key_has_its_type_bounds_default_and_meaning(lines: list[str], row: str) -> None:
    assert row in lines


def test_a_section_is_explained_once_with_all_its_places(lines: list[str]) -> None:
    headings = [line for line in lines if line.startswith("## ")]
    assert headings == ["## The run", "## `pet`, `guest`", "## `pet`"]
    assert "Where they live." in lines


def test_a_shared_key_is_explained_once_unless_a_default_differs(lines: list[str]) -> None:
    assert [line for line in lines if line.startswith("| `name`")] == [
        "| `name` | text (at least 1) | `Rex` |  |",
        "| `name` | text | `Bello` |  |",
    ]
    assert lines.count("| `age` | integer | `1` |  |") == 1
    assert lines.count("`age`: as in “`pet`, `guest`”.") == 1


@pytest.fixture(scope="module")
def reference() -> str:
    return configuration_reference(RunConfig)


def test_the_page_is_current(reference: str) -> None:
    assert PAGE.read_text(encoding="utf-8") == reference, "run: kcm config > docs/configuration.md"


def test_every_key_of_a_run_is_explained(reference: str) -> None:
    rows = [line for line in reference.splitlines() if line.startswith("| `")]
    assert len(rows) > 50
    assert [row for row in rows if row.endswith("|  |")] == []


def test_the_schema_takes_every_shipped_configuration_and_no_misspelled_key() -> None:
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
