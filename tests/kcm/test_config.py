"""A configuration is strict, and its errors name the key, the value and what was probably meant."""

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from kcm.config import Config, LocalPath, load_config, parse_config, with_absolute_paths
from kcm.errors import ConfigError


class Dog(Config):
    barking: float = Field(1.0, gt=0)


class Home(Config):
    name: str
    pet: Dog = Dog()
    rooms: tuple[str, ...] = ()


def write(tmp_path, text: str):
    path = tmp_path / "home.yaml"
    path.write_text(text)
    return path


def test_a_file_and_its_overrides_make_a_configuration(tmp_path) -> None:
    path = write(tmp_path, "name: cottage\npet: {}\n")
    home = load_config(Home, path, ["pet.barking=2.5", "rooms=[hall, attic]"])
    assert home == Home(name="cottage", pet=Dog(barking=2.5), rooms=("hall", "attic"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nme": "x"}, r"unknown key 'nme', did you mean 'name'\?"),
        ({"name": "x", "pet": {"barkin": 3}}, r"unknown key 'pet\.barkin', did you mean 'pet\.barking'\?"),
        ({"nme": "x", "pets": {}}, r"unknown key 'nme'.*; unknown key 'pets'"),
        ({"name": "x", "pet": {"barking": -1}}, r"pet\.barking must be more than 0, not -1"),
        ({"name": "x", "pet": {"barking": float("nan")}}, r"barking"),
    ],
)
def test_bad_values_are_named(values, message) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(Home, values)


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("name: [", [], "not a YAML file"),
        ("- a\n- b\n", [], "no keys with values"),
        ("name: x", ["name"], r"key\.path=value"),
        ("name: x", ["name.first=y"], "not a section"),
        ("name: x", ["rooms=[a"], "not YAML"),
    ],
)
def test_bad_files_and_overrides_are_explained(tmp_path, text, overrides, message) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(Home, write(tmp_path, text), overrides)


def test_a_file_that_cannot_be_read_is_named(tmp_path) -> None:
    """Promise: an error of the file system is one line, as a file that is not YAML is."""
    with pytest.raises(ConfigError, match=r"cannot read it: Not a directory \(.*home\.yaml/pet\.yaml\)"):
        load_config(Home, write(tmp_path, "") / "pet.yaml")


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
