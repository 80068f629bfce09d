"""What docs/python.md and the examples say is what happens."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import nbformat
import pytest

from kcm.certify.certificate import CertificateConfig
from kcm.certify.outlook import outlook
from pipelines.pyfunc import register_model
from pipelines.tracking.config import TrackingConfig
from pipelines.tracking.tracking import Tracking, set_champion
from tests.kcm.bundle.test_runtime import loadable
from tests.notebooks import EXAMPLES, executed

__all__ = ["loadable"]  # a fixture

ROOT = Path(__file__).parents[1]


@pytest.fixture
def champion(loadable: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:  # type: ignore[type-arg]
    """A registry that MLflow points to, whose champion of `reviews` is a tiny bundle."""
    folder = loadable[0].write(tmp_path / "bundle")
    tracking = Tracking.open(TrackingConfig(), tmp_path, name="reviews", key="key")
    set_champion(tracking.uri, "reviews", register_model(tracking, "reviews", folder, "fingerprint"))
    tracking.close()
    monkeypatch.setenv("KCM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(tracking.uri)
    yield
    mlflow.set_tracking_uri(before)


@pytest.mark.usefixtures("champion")
def test_the_page_on_python_is_true() -> None:
    failed, tried = doctest.testfile(str(ROOT / "docs" / "python.md"), module_relative=False)
    assert tried > 20
    assert failed == 0


def test_the_example_in_the_classifier_is_true() -> None:
    from kcm.api import classifier

    assert doctest.testmod(classifier) == (0, 6)


def test_the_table_of_units_is_what_the_outlook_says() -> None:
    page = (ROOT / "docs" / "first_run.md").read_text()
    rows = re.findall(r"^\| ([\d.]+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$", page, re.M)
    assert len(rows) == 6
    for epsilon, *needed in rows:
        config = CertificateConfig(epsilon=float(epsilon))
        for written, scope, num_tasks in zip(needed, ("global", "per_task", "per_task"), (1, 3, 10), strict=True):
            units = {str(task): 1 for task in range(num_tasks)}
            assert outlook(units, config, [scope]).needed == int(written.replace(",", ""))  # type: ignore[list-item]


def test_the_page_of_results_is_made_from_the_files_of_results() -> None:
    made = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "results_page.py")], capture_output=True, text=True, check=True
    )
    assert made.stdout == (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


def test_the_readme_quotes_the_table_of_the_demo() -> None:
    page = (ROOT / "docs" / "demo.md").read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(page) if line.startswith("| overall |"))
    saved = [line.split("|")[8].strip() for line in page[first : first + 2]]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^\| the (?:demo|same).*?\| ([\d.]+)% \|", readme, re.M)
    assert quoted == saved


def test_the_notebooks_run() -> None:
    """Each ends with assertions on what it shows; the quick start runs with the main job, on its registry."""
    cells = executed("continual_learning", "routing_on_logs").cells
    shown = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
    kinds = {kind for output in shown for kind in output.get("data", {})}
    assert {"text/html", "image/png"} <= kinds


@pytest.mark.parametrize("name", ["quickstart", "continual_learning", "routing_on_logs"])
def test_a_notebook_is_kept_with_what_it_shows_and_without_errors(name: str) -> None:
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert outputs
    assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in outputs)


def test_the_site_builds_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    """`strict` makes an error of every broken link and anchor."""
    build = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    built = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "loop" / "index.html").is_file()
