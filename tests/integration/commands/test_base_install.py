"""The base installation: the wheel without extras, in an environment that has neither Ray nor MLflow.

Links to what is installed here of the wheel's dependencies fill the environment, so that no index is asked.
"""

import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from importlib.metadata import distribution
from importlib.util import cache_from_source
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jobs.cli import RAY
from kcm.cascade.policy import KEEP_ALL, Policy
from tests.fake_hub import FakeHub
from tests.integration.conftest import MINILM
from tests.newcomer import build_wheel
from tests.test_arrows import base_modules, brought
from tools.assets import fetch
from tools.catalog import ASSETS

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of the environment."""
    folder = tmp_path_factory.mktemp("base")
    venv.create(folder / "venv", symlinks=True)
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    (folder / "wheel").mkdir()
    wheel = build_wheel(folder / "wheel")
    python = folder / "venv" / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-index", "--no-deps", "--quiet"]
    subprocess.run([*install, str(wheel)], check=True)
    metadata = next(packages.glob("kcm_cascade-*.dist-info"))
    lines = (metadata / "METADATA").read_text(encoding="utf-8").splitlines()
    required = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    for name in brought(line for line in required if "extra ==" not in line):
        link(name, packages)
    return python


def link(name: str, packages: Path) -> None:
    """Put links to the files of an installed distribution into another environment; its scripts are left out."""
    for file in distribution(name).files or ():
        if ".." in file.parts or file.suffix == ".pyc":
            continue
        pairs = [(Path(str(file.locate())), packages / file)]
        if file.suffix == ".py":
            pairs.append((Path(cache_from_source(str(pairs[0][0]))), Path(cache_from_source(str(pairs[0][1])))))
        for source, target in pairs:
            if source.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(source)


@pytest.fixture
def run(python: Path, assets_dir: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the Python of the environment in an empty folder."""
    foreign = ("PYTHON", "KCM_", "RAY_", "MLFLOW_")
    settings = {"KCM_ASSETS": str(assets_dir.absolute()), "XDG_DATA_HOME": str(tmp_path / "home")}

    def run_python(*words: str) -> subprocess.CompletedProcess[str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        return subprocess.run(
            [python, *words], cwd=tmp_path, env=own | settings, capture_output=True, text=True, timeout=600
        )

    return run_python


@pytest.fixture
def kcm(run: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command."""
    return lambda *words: run("-m", "jobs.cli", *words)


def test_every_base_module_is_imported(run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Promise: neither Ray nor MLflow is there, no requirement is missing, and no module of the base needs more."""
    source = """
import importlib.util, sys
from importlib import import_module
for module in sys.argv[1:]:
    import_module(module)
print([name for name in ("ray", "mlflow") if importlib.util.find_spec(name)])
"""
    done = run("-c", source, *sorted(base_modules()))
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


@pytest.mark.parametrize("name", sorted(RAY))
def test_a_command_names_its_extra(kcm: Callable[..., subprocess.CompletedProcess[str]], name: str) -> None:
    """Promise: one line says what to install."""
    done = kcm(name, "--help")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: kcm {name} needs ")
    assert done.stderr.endswith(". pip install 'kcm-cascade[ray]'\n")


def test_a_table_is_labelled_with_a_model_of_the_hub(
    kcm: Callable[..., subprocess.CompletedProcess[str]],
    hub: FakeHub,
    assets_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Promise: from `pip install` to labels, a certificate and a page, with recorded answers and the hub's MiniLM."""
    model = fetch(MINILM, assets_dir)
    hub.files = {name: (model / name).read_bytes() for name in ASSETS[MINILM].files}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = np.random.default_rng(0).choice(["good", "bad"], 600)
    said = np.where(words == "good", "positive", "negative")
    table = pd.DataFrame({"text": [f"a {word} film, number {n}" for n, word in enumerate(words)], "gpt": said})
    table.to_csv(tmp_path / "films.csv", index=False)
    options = ["--assets-path", "empty", "--answers", "gpt", "--yes", "--json", "result.json"]
    done = kcm("label", "films.csv", *options)
    assert done.returncode == 0, done.stderr
    assert f"downloading {MINILM} from the hub" in done.stderr
    assert any(request.endswith("/model.safetensors") for request in hub.requests)
    result = json.loads((tmp_path / "result.json").read_text())
    labelled = pd.read_csv(tmp_path / "films.labelled.csv")
    assert (labelled["label"] != labelled["gpt"]).mean() <= 0.05
    assert result["bought"] < len(table)
    assert "Rows that the small model labelled" in (tmp_path / "films.labelled.html").read_text(encoding="utf-8")


def test_a_file_is_predicted(
    kcm: Callable[..., subprocess.CompletedProcess[str]],
    quick_bundle: Callable[..., Path],
    sentences: list[str],
    tmp_path: Path,
) -> None:
    """Promise: `kcm predict` and `kcm explain` work in one process."""
    pd.DataFrame({"text": sentences[:50]}).to_csv(tmp_path / "rows.csv", index=False)
    bundle = str(quick_bundle(policy=Policy(decision=KEEP_ALL)))
    done = kcm("predict", bundle, "rows.csv", "--output", "answers.csv")
    assert done.returncode == 0, done.stderr
    answers = pd.read_csv(tmp_path / "answers.csv")
    assert answers["text"].tolist() == sentences[:50]
    assert set(answers["label"]) <= {"negative", "positive"}
    assert set(answers["route"]) == {"small"}
    on_a_cluster = kcm("predict", bundle, "rows.csv", "--output", "more.csv", "--config", "none.yaml")
    assert on_a_cluster.returncode == 2
    registered = kcm("predict", "models:/reviews@champion", "rows.csv", "--output", "more.csv")
    assert registered.stderr == "error: models: needs mlflow, which is not installed. pip install 'kcm-cascade[ray]'\n"


def test_a_threshold_is_certified(run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Promise: `kcm.certify` certifies anybody's scores."""
    done = run("-c", "import kcm; print(kcm.certify(range(2000), [True] * 2000).kept)")
    assert (done.returncode, done.stdout) == (0, "1.0\n"), done.stderr
