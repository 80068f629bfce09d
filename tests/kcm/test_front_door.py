"""`import kcm` gives all names at once and costs nothing; what needs Ray or MLflow comes by entry points."""

import pkgutil
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path

import pandas as pd
import pytest

import kcm
from kcm.errors import ArtefactError, ConfigError

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def test_import_is_light_and_names_load_only_their_needs() -> None:
    source = """
import sys
import kcm
heavy = {"torch", "numpy", "pandas", "pydantic", "sklearn", "transformers", "ray", "mlflow", "importlib.metadata"}
print(sorted(heavy & sys.modules.keys()))
kcm.KcmError
print(sorted((heavy - {"importlib.metadata"}) & sys.modules.keys() - {"pydantic"}))
kcm.load, kcm.KAN
print(sorted({"ray", "mlflow", "sklearn", "transformers"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "[]", "[]"]


@pytest.mark.parametrize("name", kcm.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(kcm, name).__name__ == name
    assert name in dir(kcm)


def test_no_submodule_hides_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`kcm.certify` and `kcm.label` can be called after every submodule was imported."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    for module in pkgutil.walk_packages(kcm.__path__, "kcm."):
        import_module(module.name)
    assert kcm.certify([0.5] * 200, [1] * 200).valid
    frame = pd.DataFrame({"text": [f"row {number}" for number in range(10)]})
    labelled = kcm.label(frame, labels=["a", "b"], llm=lambda texts: ["a"] * len(texts), encoder="words")
    assert set(labelled.frame["label"]) == {"a"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Kascade'"):
        kcm.Kascade  # noqa: B018


@pytest.mark.parametrize("group", ["kcm.verbs", "kcm.schemes"])
def test_what_is_declared_can_be_loaded(group: str) -> None:
    declared = tomllib.loads(PYPROJECT.read_text())["project"]["entry-points"][group]
    assert declared
    for path in declared.values():
        module, _, name = path.partition(":")
        assert callable(getattr(import_module(module), name))


def registered(monkeypatch: pytest.MonkeyPatch, group: str, name: str, value: str) -> None:
    def entry_points(group: str) -> list[EntryPoint]:
        return [entry] if group == entry.group else []

    entry = EntryPoint(name, value, group)
    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    monkeypatch.setattr("kcm.bundle.entry_points", entry_points)


def test_a_verb_that_is_registered_is_a_name_of_kcm(monkeypatch: pytest.MonkeyPatch) -> None:
    registered(monkeypatch, "kcm.verbs", "measure", "builtins:len")
    monkeypatch.setattr(kcm, "measure", None, raising=False)  # so that what the lookup keeps is removed again
    del kcm.__dict__["measure"]
    assert "measure" in dir(kcm)
    assert kcm.measure("four") == 4


def test_a_scheme_that_is_registered_fetches_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    registered(monkeypatch, "kcm.schemes", "there", "pathlib:Path")
    with pytest.raises(ArtefactError, match=r"bundle\.json") as refused:
        kcm.load("there:bundle")
    assert refused.value.where == "there:bundle"


def test_what_is_no_source_is_refused_with_what_would_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown scheme 'ftp'.*known schemes are"):
        kcm.load("ftp://host/bundle")
    with pytest.raises(ArtefactError, match="no such folder"):
        kcm.load(tmp_path / "nothing")
