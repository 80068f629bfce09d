"""A run with something in its registry, and a user's folder of its own."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from kcm.bundle.frozen_models import bundle_digest
from kcm.config import load_config
from pipelines.config import RunConfig
from pipelines.registry.champion import Champion, Pointer
from pipelines.registry.promote import Champions
from pipelines.store.artefact import CONTROL
from pipelines.store.records import Control
from pipelines.tracking.tracking import Tracking

REVIEWS = Path(__file__).parents[2] / "jobs" / "configs" / "reviews.yaml"


@pytest.fixture(autouse=True)
def _own_user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the folder of the user that runs it."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user"))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A run whose registry holds two versions, the second of them the champion."""
    return registered(tmp_path_factory.mktemp("storage"))


def registered(storage: Path, versions: Sequence[str] = ("first", "second")) -> RunConfig:
    """A run that keeps its registry with these versions in a folder, the last of them the champion."""
    config = load_config(RunConfig, REVIEWS, [f"storage_path={storage}"])
    tracking = Tracking.open(config.tracking, storage, name=config.name, key="key")
    for version in versions:
        bundle = storage / version
        bundle.mkdir()
        (bundle / "bundle.json").write_text(version)
        number = tracking.register(config.name, bundle, fingerprint=version)
        candidate = Champion(version=f"{config.name}/{number}", digest=bundle_digest(bundle), bundle=version, by="run")
        Champions(Pointer(Control(storage / CONTROL), config.name), tracking.uri, config.name).introduce(candidate)
    return config
