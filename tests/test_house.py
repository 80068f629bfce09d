"""The rules that keep the house small: one meaning a name, imports at the top, no private parts, budgets that hold."""

from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def size() -> ModuleType:
    """The script that prints the size of the house."""
    loader = SourceFileLoader("size", str(ROOT / ".ci" / "size"))
    spec = spec_from_loader("size", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture
def files(size: ModuleType, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.chdir(ROOT)
    return size.sources(*size.PRODUCT)


def test_a_public_class_name_has_one_meaning(size: ModuleType, files: dict[str, str]) -> None:
    assert size.repeated_classes(files) == []


def test_few_places_reach_into_private_parts(size: ModuleType, files: dict[str, str]) -> None:
    assert len(size.private_imports(files)) <= 3


def test_imports_stand_at_the_top(size: ModuleType, files: dict[str, str]) -> None:
    assert len(size.late_imports(files)) <= 40
