"""What a run registers is an MLflow model: anybody who knows MLflow can load and serve it."""

import json
from importlib import metadata
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.models import get_model_info

import kcm
from kcm.api.cascade import load_cascade
from kcm.api.rows import ANSWERS
from kcm.bundle.bundle import Bundle
from kcm.bundle.frozen_models import bundle_digest
from kcm.errors import ConfigError
from pipelines.registry import models as registry
from pipelines.registry.pyfunc import register_model
from pipelines.tracking.config import TrackingConfig
from pipelines.tracking.tracking import Tracking, set_champion
from tests.kcm.bundle.test_runtime import loadable

__all__ = ["loadable"]  # a fixture


@pytest.fixture(scope="module")
def registered(loadable: tuple[Bundle, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A bundle's folder, and the URI of the SQLite registry with its one version."""
    root = tmp_path_factory.mktemp("registered")
    folder = loadable[0].write(root / "bundle")
    tracking = Tracking.open(TrackingConfig(), root, name="reviews", key="key")
    set_champion(tracking.uri, "reviews", register_model(tracking, "reviews", folder, "fingerprint"))
    return folder, tracking.uri


@pytest.fixture
def in_use(registered: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Points MLflow to the registry; gives the bundle's folder."""
    folder, uri = registered
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)  # `mlflow.set_tracking_uri` would outlive the test
    monkeypatch.setenv("KCM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    return folder


def test_mlflow_loads_the_champion_with_equal_answers(in_use: Path, tmp_path: Path) -> None:
    """Promise: mlflow loads the champion and it answers as the cascade does."""
    model = mlflow.pyfunc.load_model("models:/reviews@champion")
    frame = pd.DataFrame({"text": ["a b", "c", " "], "label": ["x", "y", "z"]})
    found = model.predict(frame)
    assert list(found.columns) == ANSWERS.names
    expected = load_cascade(in_use, tmp_path).predict(["a b", "c"])
    assert list(found["label"][:2]) == [answer.label for answer in expected]
    assert list(found["gate_score"][:2]) == pytest.approx([answer.gate_score for answer in expected])
    assert found["error"][2] == "no text"


def test_signature_example_and_requirements_are_registered(in_use: Path) -> None:
    info = get_model_info("models:/reviews@champion")
    assert [(column.name, column.required) for column in info.signature.inputs] == [
        ("text", True),
        ("task", False),
        ("id", False),
    ]
    assert info.signature.outputs.input_names()[0] == "label"
    assert info.saved_input_example_info is not None
    required = Path(mlflow.pyfunc.get_model_dependencies("models:/reviews@champion")).read_text().split()
    (distribution,) = set(metadata.packages_distributions()["kcm"])  # not one of another project that an index may have
    assert set(required) - {f"mlflow=={mlflow.__version__}"} == {
        f"{distribution}[onnx]=={metadata.version(distribution)}"
    }
    version = mlflow.MlflowClient().get_model_version_by_alias("reviews", "champion")
    assert "**labels**: bad, good, unclear" in version.description
    with pytest.raises(mlflow.exceptions.MlflowException, match="missing inputs"):
        mlflow.pyfunc.load_model("models:/reviews@champion").predict(pd.DataFrame({"review": ["a"]}))


def test_the_bundle_is_found_with_its_own_digest(in_use: Path, registered: tuple[Path, str], tmp_path: Path) -> None:
    version, copy = registry.fetch_verified(registered[1], "reviews@champion", tmp_path)
    assert version == "reviews/1"
    assert bundle_digest(copy) == bundle_digest(in_use) == Bundle.read(copy).digest
    assert {file.name for file in copy.iterdir()} > {"MLmodel", "requirements.txt", "bundle.json"}


@pytest.mark.parametrize("source", ["models:/reviews@champion", "models:/reviews/1", "models:/reviews"])
def test_kcm_loads_it_from_the_registry_that_mlflow_points_to(in_use: Path, source: str) -> None:
    found = registry.fetch(source)
    assert bundle_digest(found) == bundle_digest(in_use)
    assert kcm.load(found).predict(["a b"])[0].label == load_cascade(in_use, in_use).predict(["a b"])[0].label


def test_mlflow_s_scoring_server_answers(in_use: Path) -> None:
    """The application of `mlflow models serve`, without a process of its own."""
    from fastapi.testclient import TestClient
    from mlflow.pyfunc.scoring_server import init

    with TestClient(init(mlflow.pyfunc.load_model("models:/reviews@champion"))) as client:
        asked = client.post("/invocations", json={"dataframe_records": [{"text": "a b"}, {"text": ""}]})
    assert asked.status_code == 200, asked.text
    first, second = json.loads(asked.text)["predictions"]
    assert first["route"] == "large"
    assert second["error"] == "no text"


def test_settings_of_the_loader_reach_it_and_are_checked(in_use: Path) -> None:
    with pytest.raises(ConfigError, match=r"upstreams\.0\.base_url.*http or https"):
        mlflow.pyfunc.load_model("models:/reviews@champion", model_config={"upstreams": [{"base_url": "ftp://x"}]})
