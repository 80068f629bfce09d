"""Promise: whatever follows models:/ names a registered version, or ends in one line."""

from pathlib import Path

import mlflow
import pytest

from kcm.bundle import folder_of
from kcm.errors import KcmError

MALFORMED = [
    "models:/",
    "models://",
    "models:ok",
    "models:/a@b@c",
    "models:/ok@",
    "models:/@champion",
    "models:/ok/latest",
    "models:/ok/-1",
    "models:/ok/1 OR 1=1",
    "models:/ok/../../etc",
    "models:/../..",
    "models:/%2e%2e/1",
    "models:/ok\0",
    "models:/\ud800",
    "models:/" + "x" * 10_000,
]


@pytest.fixture(autouse=True)
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry with one name and no version."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri := f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("KCM_CACHE", str(tmp_path / "cache"))
    mlflow.MlflowClient(uri).create_registered_model("ok")


def test_malformed_names_are_one_line(tmp_path: Path) -> None:
    """Promise: no name leads out of the registry, none is an unexpected error, nothing is written."""
    for source in MALFORMED:
        with pytest.raises(KcmError, match="registered model") as refused:
            folder_of(source)
        assert "\n" not in str(refused.value)
        assert refused.value.hint
    assert not (tmp_path / "cache").exists()
