"""Imports point one way: jobs -> pipelines -> kcm; kcm knows neither Ray nor MLflow. Workers import what they use."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def imports(folder: Path, root: Path = ROOT) -> Iterator[tuple[str, str]]:
    """(file, imported name) for every import below `folder`, those inside functions included."""
    for path in sorted(folder.rglob("*.py")):
        name = str(path.relative_to(root))
        package = path.relative_to(root).parent.parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((name, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                above = package[: len(package) - node.level + 1] if node.level else ()
                module = ".".join([*above, *filter(None, [node.module])])
                yield from ((name, f"{module}.{alias.name}") for alias in node.names)


def within(name: str, *modules: str) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def offenders(folder: str, *forbidden: str, but: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    found = list(imports(ROOT / folder))
    assert found, f"no import below {folder}: is the folder still there?"
    return [(file, name) for file, name in found if within(name, *forbidden) and not within(name, *but)]


def test_kcm_imports_neither_ray_nor_mlflow_nor_what_stands_above_it() -> None:
    assert offenders("kcm", "ray", "mlflow", "pipelines", "jobs") == []


def test_pipelines_import_nothing_of_jobs() -> None:
    assert offenders("pipelines", "jobs") == []


def test_nothing_in_kcm_imports_the_report_but_the_report() -> None:
    assert [pair for pair in offenders("kcm", "kcm.report") if not pair[0].startswith("kcm/report/")] == []


@pytest.mark.parametrize("room", ["kan", "metrics"])
def test_kan_and_metrics_import_nothing_of_kcm_but_its_errors(room: str) -> None:
    assert offenders(f"kcm/{room}", "kcm", but=(f"kcm.{room}", "kcm.errors")) == []


def test_the_trainer_sees_imports_in_functions_and_relative_ones(tmp_path: Path) -> None:
    room = tmp_path / "kcm" / "kan"
    room.mkdir(parents=True)
    (room / "layer.py").write_text(
        "from ..report import page\ndef f():\n    import ray.data\n    from . import basis\n"
    )
    seen = {name for _, name in imports(tmp_path, root=tmp_path)}
    assert seen == {"kcm.report.page", "ray.data", "kcm.kan.basis"}


def test_a_worker_starts_without_what_only_others_need() -> None:
    """Each of these takes a second or two of every process that Ray starts; what the first brings, the next has."""
    workers = ("pipelines.batch.encoding", "pipelines.training.trial", "pipelines.serve.cascade.door")
    slow = {"mlflow", "optuna", "sklearn", "torch._dynamo", "transformers.image_processing_utils"}
    steps = [f"import {worker}; print({worker!r}, {slow} & sys.modules.keys())" for worker in workers]
    loaded = subprocess.run(
        [sys.executable, "-c", "\n".join(["import sys", *steps])], capture_output=True, text=True, check=True
    )
    assert loaded.stdout.splitlines() == [f"{worker} set()" for worker in workers]
