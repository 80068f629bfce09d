"""Imports point one way: jobs -> pipelines -> kcm, and never in a circle; kcm knows neither Ray nor MLflow.

Workers import what they use. Only `kcm.components` asks which class a configuration has.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from jobs.cli import COMMANDS, RAY
from kcm.extras import EXTRAS

ROOT = Path(__file__).parent.parent
PACKAGES = ("kcm", "pipelines", "jobs")
LOADERS = ("import_module", "load", "load_part")
BY_STRING = re.compile(rf"({'|'.join(PACKAGES)})\.")
SERVE_LAYERS = ("log", "cascade", "http", "deploy")  # each imports only the ones before it, and modules beside them


def imports(folder: Path, root: Path = ROOT) -> Iterator[tuple[str, str]]:
    """(file, imported name) for every import below `folder`, those inside functions and by strings included."""
    for path in sorted(folder.rglob("*.py")):
        yield from imports_of(path, root)
        yield from loads_of(path, root)


@cache
def imports_of(path: Path, root: Path) -> tuple[tuple[str, str], ...]:
    """The import statements of one file, which is read once."""
    name = str(path.relative_to(root))
    package = path.relative_to(root).parent.parts
    found: list[tuple[str, str]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(name, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *filter(None, [node.module])])
            found += [(name, f"{module}.{alias.name}") for alias in node.names]
    return tuple(found)


@cache
def loads_of(path: Path, root: Path) -> tuple[tuple[str, str], ...]:
    """The imports of one file by `import_module("module")` and `extras.load("module:name")`."""
    name = str(path.relative_to(root))
    calls = (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
    loads = (call.args for call in calls if ast.unparse(call.func).rpartition(".")[2] in LOADERS)
    strings = (arg.value for args in loads for arg in args if isinstance(arg, ast.Constant))
    return tuple((name, text.replace(":", ".")) for text in strings if isinstance(text, str) and BY_STRING.match(text))


def within(name: str, *modules: str) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def offenders(folder: str, *forbidden: str, but: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    found = list(imports(ROOT / folder))
    assert found, f"no import below {folder}: is the folder still there?"
    return [(file, name) for file, name in found if within(name, *forbidden) and not within(name, *but)]


def test_kcm_imports_no_ray_mlflow_or_upper_package() -> None:
    """Promise: kcm imports neither ray nor mlflow nor what stands above it."""
    assert offenders("kcm", "ray", "mlflow", "pipelines", "jobs") == []


def test_pipelines_import_nothing_of_jobs() -> None:
    assert offenders("pipelines", "jobs") == []


def test_nothing_in_kcm_imports_the_report_but_the_report() -> None:
    assert [pair for pair in offenders("kcm", "kcm.report") if not pair[0].startswith("kcm/report/")] == []


@pytest.mark.parametrize("room", ["kan", "metrics"])
def test_kan_and_metrics_import_nothing_of_kcm_but_its_errors(room: str) -> None:
    assert offenders(f"kcm/{room}", "kcm", but=(f"kcm.{room}", "kcm.errors")) == []


def module_of(path: Path, root: Path = ROOT) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(path: Path, root: Path = ROOT) -> str:
    """The folder of a file; a file that lies directly in a folder with sub-folders is a room of its own."""
    has_rooms = any(file.parent != path.parent for file in path.parent.rglob("*.py"))
    return module_of(path, root) if has_rooms else ".".join(path.relative_to(root).parent.parts)


def circle(name_of: Callable[[Path, Path], str], root: Path = ROOT) -> list[str]:
    """Names that need one another, in a row that ends with its first; empty where there is no circle."""
    files = [file for package in PACKAGES for file in (root / package).rglob("*.py")]
    names = {module_of(file, root): name_of(file, root) for file in files}
    graph: dict[str, set[str]] = {name: set() for name in names.values()}
    for package in PACKAGES:
        for file, imported in imports(root / package, root):
            target = imported if imported in names else imported.rpartition(".")[0]
            if target in names:
                name = name_of(root / file, root)
                graph[name] |= {names[target]} - {name}
    assert graph
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


@pytest.mark.parametrize("name_of", [module_of, room_of], ids=["files", "rooms"])
def test_nothing_imports_in_a_circle(name_of: Callable[[Path, Path], str]) -> None:
    """Imports within functions, under TYPE_CHECKING and by a string count."""
    assert circle(name_of) == []


def test_picture_shows_each_package_above_its_imports() -> None:
    """Promise: the picture of the rooms shows each above all that it imports."""
    picture = ET.parse(ROOT / "docs" / "images" / "architecture.svg")
    drawn = {node.get("data-room", ""): float(node.get("y", "")) for node in picture.iter() if node.get("data-room")}
    folders = {f"{package}.{folder.parent.name}" for package in PACKAGES for folder in (ROOT / package).glob("*/*.py")}
    assert drawn.keys() == folders
    for package, _, room in (name.partition(".") for name in drawn):
        for file, imported in imports(ROOT / package / room):
            pair = f"{package}.{room}", ".".join(imported.split(".")[:2])
            if pair[1] in drawn and pair[0] != pair[1]:
                assert drawn[pair[0]] < drawn[pair[1]], f"{file} imports {imported}, which is drawn above it"


@pytest.mark.parametrize("layer", SERVE_LAYERS)
def test_each_layer_of_serving_imports_only_the_ones_below(layer: str) -> None:
    above = SERVE_LAYERS[SERVE_LAYERS.index(layer) + 1 :]
    assert offenders(f"pipelines/serve/{layer}", *(f"pipelines.serve.{each}" for each in above)) == []


def test_modules_beside_the_serving_layers_import_none() -> None:
    """Promise: what lies beside the layers of serving imports none of them."""
    layers = [f"pipelines.serve.{layer}" for layer in SERVE_LAYERS]
    beside = {str(file.relative_to(ROOT)) for file in (ROOT / "pipelines" / "serve").glob("*.py")}
    assert [pair for pair in offenders("pipelines/serve", *layers) if pair[0] in beside] == []


def config_classes(root: Path = ROOT) -> set[str]:
    """Names of all classes that inherit from `Config`, those of components among them."""
    bases: dict[str, set[str]] = {}
    for package in PACKAGES:
        for file in (root / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    bases.setdefault(node.name, set()).update(
                        name.id for base in node.bases for name in ast.walk(base) if isinstance(name, ast.Name)
                    )
    found = {"Config"}
    while derived := {name for name, above in bases.items() if above & found} - found:
        found |= derived
    return found


def config_checks(root: Path = ROOT) -> list[tuple[str, str]]:
    """(file, class) for each `isinstance` or `case` that decides by a configuration class; an assertion does not."""
    found, classes = [], config_classes(root) - {"Config"}  # the base alone is asked for to walk through any of them
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            asserted = {
                id(node) for check in ast.walk(tree) if isinstance(check, ast.Assert) for node in ast.walk(check)
            }
            for node in ast.walk(tree):
                asked: ast.AST | None = None
                if isinstance(node, ast.MatchClass):
                    asked = node.cls
                elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
                    asked = None if id(node) in asserted else node.args[1]
                names = {getattr(each, "id", getattr(each, "attr", "")) for each in ast.walk(asked)} if asked else set()
                found += [(str(file.relative_to(root)), name) for name in sorted(names & classes)]
    return found


def test_only_components_ask_which_class_a_configuration_has() -> None:
    assert [check for check in config_checks() if check[0] != "kcm/components.py"] == []


def reached(start: set[str], root: Path = ROOT) -> dict[str, str]:
    """Modules that are imported from `start`, directly or not, and the module that imports each.

    Imports within functions and under TYPE_CHECKING count, and a module brings the packages that it lies in.
    """
    files = {module_of(path, root): path for package in PACKAGES for path in (root / package).rglob("*.py")}
    importers = dict.fromkeys(start, "")
    left = list(start)
    while left:
        module = left.pop()
        parents = [module.rpartition(".")[0]] if "." in module else []
        names = [name for _, name in imports_of(files[module], root)] if module in files else []
        loads = [name for _, name in loads_of(files[module], root) if within(name, "jobs")] if module in files else []
        for name in [*parents, *names, *loads]:
            target = name if name in files or not within(name, *PACKAGES) else name.rpartition(".")[0]
            if target not in importers:
                importers[target] = module
                left.append(target)
    return importers


def base_modules() -> set[str]:
    """All of `kcm`, and the modules of the commands that the base installation has."""
    library = {module_of(path) for path in (ROOT / "kcm").rglob("*.py")}
    return library | {"jobs.cli"} | {COMMANDS[name].partition(":")[0] for name in COMMANDS.keys() - RAY}


def test_no_module_of_the_base_reaches_ray_or_mlflow() -> None:
    """Promise: `pip install kcm-cascade` has all that its commands import, at any depth."""
    importers = reached(base_modules())
    assert [(name, importers[name]) for name in importers if within(name, "ray", "mlflow")] == []


@pytest.mark.parametrize("name", sorted(RAY))
def test_what_needs_the_extra_reaches_it(name: str) -> None:
    """Promise: the list of commands that need the extra is no longer than it must be."""
    assert any(within(module, *EXTRAS["ray"]) for module in reached({COMMANDS[name].partition(":")[0]}))


def brought(requirements: Iterable[str]) -> set[str]:
    """Names of the distributions that requirements bring, directly or not; of extras those that a requirement names."""
    names: set[str] = set()
    left = [Requirement(line) for line in requirements]
    while left:
        requirement = left.pop()
        name = canonicalize_name(requirement.name)
        if name not in names:
            names.add(name)
            below = map(Requirement, distribution(name).requires or ())
            asked = [{"extra": extra} for extra in (*requirement.extras, "")]
            left += [each for each in below if each.marker is None or any(map(each.marker.evaluate, asked))]
    return names


def test_the_base_brings_every_package_that_it_imports() -> None:
    """Promise: what the base imports is among its dependencies, or brought by a small extra that its message names."""
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    providers, names = packages_distributions(), brought(dependencies)
    optional = frozenset().union(*(modules for extra, modules in EXTRAS.items() if extra != "ray"))
    modules = {name.partition(".")[0] for name in reached(base_modules())}
    foreign = modules - sys.stdlib_module_names - {*PACKAGES} - optional
    assert foreign
    assert {module for module in foreign if not names & set(map(canonicalize_name, providers.get(module, ())))} == set()


def test_a_worker_starts_without_what_only_others_need() -> None:
    """Each of these takes time of every process that Ray starts; what the first brings, the next has.

    Only trainings have scikit-learn, which fits their logistic regression and takes a fifth of a second.
    """
    workers = ("pipelines.batch.encoding", "pipelines.serve.deploy.http_replica", "pipelines.training.trial")
    slow = {"mlflow", "sklearn", "torch._dynamo", "transformers.image_processing_utils"}
    steps = [f"import {worker}; print({worker!r}, {slow} & sys.modules.keys())" for worker in workers]
    loaded = subprocess.run(
        [sys.executable, "-c", "\n".join(["import sys", *steps])], capture_output=True, text=True, check=True
    )
    found = ("set()", "set()", "{'sklearn'}")
    assert loaded.stdout.splitlines() == [" ".join(pair) for pair in zip(workers, found, strict=True)]


def test_a_small_run_imports_no_ray() -> None:
    """Promise: Ray, which takes a second to import, is imported only by a run that needs a cluster."""
    code = "import sys, jobs.work.run; print({'ray'} & sys.modules.keys())"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout == "set()\n"
