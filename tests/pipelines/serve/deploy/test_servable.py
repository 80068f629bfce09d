"""A bundle whose large model answers known rows alone is refused before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from kcm.bundle.bundle import Bundle
from kcm.cascade.policy import Policy
from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.encoders import PixelsConfig
from kcm.errors import ArtefactError
from kcm.large import RecordedConfig
from kcm.learners import FinetuneConfig
from pipelines.serve.config import ServeConfig
from pipelines.serve.deploy.app import require_servable
from pipelines.serve.release import Release


def test_recorded_answers_cannot_be_served(tmp_path: Path) -> None:
    encoder = PixelsConfig(side=2)
    folder = Bundle(
        collaborator=Collaborator(12, 2, NetworkConfig(), "kan", seed=0),
        seed=0,
        label_names=("no", "yes"),
        task_names=("films",),
        encoder=encoder,
        encoder_identity=encoder.identity(tmp_path),
        large=RecordedConfig(path="answers.csv"),
        large_identity="recorded",
        policy=Policy(),
        learner=FinetuneConfig(),
    ).write(tmp_path / "bundle")
    with pytest.raises(ArtefactError, match="recorded answers cannot be served"):
        require_servable(Release(version="1", bundle=folder), ServeConfig(), tmp_path)
