"""The rules that keep the house small: one meaning a name, imports at the top, no private parts, budgets that hold."""

import ast
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


PRETRAINED = "kcm/encoders/pretrained.py"
LIBRARIES = ("transformers", "sentence_transformers")


def opens_a_model(node: ast.AST, foreign: set[str]) -> bool:
    """Whether code loads a model's folder by itself: by from_pretrained, or by a class of a library and a place."""
    if isinstance(node, ast.Attribute):
        return node.attr == "from_pretrained"
    if isinstance(node, ast.Name | ast.alias):
        name = node.id if isinstance(node, ast.Name) else node.name
        return name.startswith("Auto") and name in foreign
    if not isinstance(node, ast.Call):
        return False
    names_a_place = bool(node.args) or any(each.arg in (None, "model_name_or_path") for each in node.keywords)
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return called in foreign & {"SentenceTransformer", "Transformer", "CrossEncoder", "pipeline"} and names_a_place


def imported_from(tree: ast.AST, libraries: tuple[str, ...]) -> set[str]:
    return {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in libraries
        for alias in node.names
    }


def test_one_helper_opens_pretrained_models(files: dict[str, str]) -> None:
    """Promise: every pretrained part is loaded by kcm.encoders.pretrained, which runs no code of a folder."""
    found = []
    for path, source in files.items():
        tree = ast.parse(source)
        whole = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
        foreign = imported_from(tree, LIBRARIES)
        if any(alias.name.split(".")[0] in LIBRARIES for node in whole for alias in node.names):
            found.append(path)  # a whole library is imported: its classes are out of sight
        found += [f"{path}:{node.lineno}" for node in ast.walk(tree) if opens_a_model(node, foreign)]  # type: ignore[attr-defined]
    assert [place for place in found if not place.startswith(PRETRAINED)] == []


def test_the_rule_on_pretrained_models_finds_each_way() -> None:
    """Promise: the rule above is not blind."""
    head = "from transformers import AutoModel as AutoModel\nfrom sentence_transformers import SentenceTransformer\n"
    for line in ("AutoModel", "x.from_pretrained(p)", "SentenceTransformer(p)", "SentenceTransformer(**given)"):
        tree = ast.parse(head + line)
        foreign = imported_from(tree, LIBRARIES)
        assert any(opens_a_model(node, foreign) for node in ast.walk(tree.body[-1])), line
    tree = ast.parse(head + "SentenceTransformer(modules=[a])")
    assert not any(opens_a_model(node, {"SentenceTransformer"}) for node in ast.walk(tree.body[-1]))
