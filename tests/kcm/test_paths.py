"""Paths of a configuration become absolute where they lead somewhere; ids and URIs stay as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest

from kcm.config import Config, LocalPath, with_absolute_paths


class Part(Config):
    """A section with paths of each kind."""

    file: Path = Path("rows.csv")
    model: Annotated[str | None, LocalPath] = None
    tables: Annotated[dict[str, str], LocalPath] = {}  # noqa: RUF012
    name: str = "rows.csv"


class Whole(Config):
    """A configuration with sections."""

    part: Part = Part()
    parts: tuple[Part, ...] = ()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").touch()
    return tmp_path


def test_paths_at_any_depth_are_made_absolute_and_names_are_not(here: Path) -> None:
    whole = with_absolute_paths(Whole(parts=(Part(tables={"a": "rows.csv"}),)))
    assert (whole.part.file, whole.part.name) == (here / "rows.csv", "rows.csv")
    assert whole.parts[0].tables == {"a": str(here / "rows.csv")}


@pytest.mark.parametrize("text", ["", "owner/model", "s3://bucket/rows.csv", "absent.csv", "absent/*.csv", "/absent"])
def test_what_leads_nowhere_here_stays_as_it_is(here: Path, text: str) -> None:
    assert with_absolute_paths(Part(model=text)).model == text


def test_a_pattern_is_located_by_what_matches_it(here: Path) -> None:
    assert with_absolute_paths(Part(model="*.csv")).model == f"{here}/*.csv"


def test_the_home_is_that_of_this_machine(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here))
    assert with_absolute_paths(Part(model="~/rows.csv")).model == str(here / "rows.csv")
