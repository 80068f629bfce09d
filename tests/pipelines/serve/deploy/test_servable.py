"""A bundle whose large model answers known rows alone is refused before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from kcm.cascade.policy import Policy
from kcm.errors import ArtefactError
from kcm.large.adapters.recorded import RecordedConfig
from pipelines.serve.config import ServeConfig
from pipelines.serve.deploy.app import require_servable
from pipelines.serve.release import Release
from tests.kcm.bundle.test_bundle import bundle


def test_recorded_answers_cannot_be_served(tmp_path: Path) -> None:
    recorded = {"large": RecordedConfig(path="answers.csv"), "large_head": None, "policy": Policy()}
    folder = bundle(**recorded).write(tmp_path / "bundle")
    with pytest.raises(ArtefactError, match="recorded answers cannot be served"):
        require_servable(Release(version="1", bundle=folder), ServeConfig(), tmp_path)
