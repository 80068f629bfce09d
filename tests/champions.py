"""Bundles as artefacts of stage `register`, which the champion pointer of a storage can name."""

import shutil
from pathlib import Path

from mlflow import MlflowClient

from kcm.bundle.frozen_models import bundle_digest
from pipelines.registry.champion import BUNDLE, REGISTER, Champion
from pipelines.store.artefact import ArtefactStore, publish
from pipelines.tracking.config import CHAMPION


def registered(store: ArtefactStore, bundle: Path, version: str) -> Champion:
    """Put a bundle into the storage, and give what the pointer says of it as a champion."""
    digest = bundle_digest(bundle)
    home = store.root / "artefacts" / REGISTER / digest[:16]
    if not home.exists():
        shutil.copytree(bundle, home / "attempt-test" / BUNDLE)
    publish(store.storage, home, {"stage": REGISTER}, home / "attempt-test")
    return Champion(version=version, digest=digest, bundle=digest[:16], by="promote")


def alias_of(uri: str, model: str) -> str:
    """The number of the version that MLflow's alias names."""
    return str(MlflowClient(uri).get_model_version_by_alias(model, CHAMPION).version)
