"""A run with something in its registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from kcm.config import load_config
from pipelines.config import RunConfig
from pipelines.tracking import Tracking

REVIEWS = Path(__file__).parents[2] / "jobs" / "configs" / "reviews.yaml"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A run whose registry holds two versions, the second of them the champion."""
    return registered(tmp_path_factory.mktemp("storage"))


def registered(storage: Path) -> RunConfig:
    """A run that keeps its registry with these two versions in a folder."""
    config = load_config(RunConfig, REVIEWS, [f"storage_path={storage}"])
    tracking = Tracking.open(config.tracking, storage, name=config.name, key="key")
    for version in ("first", "second"):
        bundle = storage / version
        bundle.mkdir()
        (bundle / "bundle.json").write_text(version)
        tracking.publish(config.name, bundle, fingerprint=version)
    return config
