"""`mlflow models serve` answers with a registered version, as a process of its own."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from kcm.api.cascade import load_cascade
from kcm.bundle.bundle import Bundle
from tests.integration.registry.mlflow_registry import mlflow_process, registry_of
from tests.kcm.bundle.test_runtime import loadable

__all__ = ["loadable"]  # a fixture

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_mlflow_serves_the_champion_in_a_process_of_its_own(loadable: tuple[Bundle, Path], tmp_path: Path) -> None:
    bundle, _ = loadable
    uri = registry_of(bundle, tmp_path)
    serve = ("models", "serve", "-m", "models:/reviews@champion", "--env-manager", "local")
    with mlflow_process(*serve, uri=uri, ready="/ping", folder=tmp_path) as url:
        body = {"dataframe_records": [{"text": "a b"}, {"text": ""}]}
        asked = httpx.post(f"{url}/invocations", json=body, timeout=60)
        refused = httpx.post(f"{url}/invocations", json={"dataframe_records": [{"body": "a"}]}, timeout=60)
    (expected,) = load_cascade(tmp_path / "bundle", tmp_path).predict(["a b"])
    answered, empty = asked.json()["predictions"]
    assert answered["label"] == expected.label
    assert answered["gate_score"] == pytest.approx(expected.gate_score)
    assert empty["error"] == "no text"
    assert refused.status_code == 400
