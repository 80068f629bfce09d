"""The configuration reference is what the models say, and the page in docs/ is what it says now."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from jobs.configuration_page import configuration_reference
from kcm.config import Config

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


class Cat(Config):
    """A cat."""

    kind: Literal["cat"] = "cat"
    lives: int = Field(9, ge=1, le=9, description="Lives left | at most nine.")


class Dog(Config):
    """A dog."""

    kind: Literal["dog"] = "dog"
    names: tuple[str, ...] = Field(("Rex",), min_length=1)


class Home(Config):
    """Where
    they live."""

    owner: str = Field(description="Who pays.")
    rent: float | None = Field(None, gt=0)
    colour: Literal["red", "blue"] = "red"
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] = Cat(lives=3)
    guest: Cat | None = None


@pytest.fixture
def lines() -> list[str]:
    return configuration_reference(Home).splitlines()


def test_a_key_has_its_type_bounds_default_and_meaning(lines: list[str]) -> None:
    assert "| `owner` | text | **required** | Who pays. |" in lines
    assert "| `rent` | number > 0 or null | `null` |  |" in lines
    assert "| `colour` | one of `red`, `blue` | `red` |  |" in lines
    assert "| `kind` | `cat` | `cat` | Chooses this form of the section. |" in lines
    assert "| `names` | list of text (at least 1) | `[Rex]` |  |" in lines


def test_a_pipe_in_a_meaning_does_not_break_the_table(lines: list[str]) -> None:
    assert "| `lives` | integer ≥ 1 ≤ 9 | `9` | Lives left \\| at most nine. |" in lines


def test_every_variant_of_a_section_has_its_own_heading(lines: list[str]) -> None:
    headings = [line for line in lines if line.startswith("## ")]
    assert headings == [
        "## The run",
        "## `pet` with `kind: cat`",
        "## `pet` with `kind: dog`",
        "## `guest` with `kind: cat`",
    ]
    assert "Where they live." in lines


def test_a_section_whose_default_differs_from_its_models_says_how(lines: list[str]) -> None:
    assert "| `pet` | section below | `{kind: cat, lives: 3}` | One of the forms below. |" in lines
    assert "| `guest` | section below or null | `null` | A cat. |" in lines


def test_the_page_is_current() -> None:
    from pipelines.config import RunConfig

    assert PAGE.read_text(encoding="utf-8") == configuration_reference(RunConfig), (
        "run: kcm config > docs/configuration.md"
    )


def test_every_key_of_a_run_is_explained() -> None:
    from pipelines.config import RunConfig

    rows = [line for line in configuration_reference(RunConfig).splitlines() if line.startswith("| `")]
    assert len(rows) > 50
    assert [row for row in rows if row.endswith("|  |")] == []
