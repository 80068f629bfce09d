"""Which model a command is to use: the bundle in a folder, a version in a registry, or the champion of a run."""

from __future__ import annotations

from pathlib import Path

from kcm.bundle.models import FrozenModels
from kcm.errors import KcmError
from pipelines.config import RunConfig
from pipelines.registry.champion import REGISTER
from pipelines.registry.models import artefact_of, fetch_registered, fetch_verified
from pipelines.serve.release import Release
from pipelines.serve.sources import ChampionSource, FixedSource, Source
from pipelines.store.artefact import ArtefactStore
from pipelines.tracking.config import CHAMPION


def served_folder(bundle: Path) -> Release:
    """A bundle in a folder; its version is the start of its digest. ArtefactError where there is none."""
    return Release(version=FrozenModels.read_models(bundle).digest[:12], bundle=bundle.absolute())


def served_model(config: RunConfig | None, model: str | None) -> Release:
    """A registered model by NAME@ALIAS or NAME/VERSION, without one the champion of the run; downloaded once.

    Without a run its registry is the one that `kcm.load` asks. An alias is resolved here, so that all replicas load the
    same version whatever becomes of the alias. Raises ArtefactError for a bundle that is not the one that was
    registered, KcmError where neither a run nor a model is named.
    """
    if config is None:
        if model is None:
            raise KcmError("no model is named", hint="Name a run, a bundle or a registered model")
        version, folder = fetch_registered(model)
        return Release(version=version, bundle=folder)
    uri = config.tracking.uri_in(config.storage_folder)
    asked = model or f"{config.name}@{CHAMPION}"
    version, folder = fetch_verified(uri, asked, config.storage_folder / "served")
    return Release(version=version, bundle=folder)


def served_source(config: RunConfig | None, bundle: Path | None, model: str | None) -> Source:
    """What a service serves: a bundle or a registered model for good, without either the champion of the run."""
    if bundle:
        return FixedSource(served_folder(bundle))
    if model or config is None:
        release = served_model(config, model)
        return _from_bucket(config, release) if config and "://" in str(config.storage_path) else FixedSource(release)
    return ChampionSource(str(config.storage_path), config.name)


def _from_bucket(config: RunConfig, release: Release) -> FixedSource:
    """A registered version as the artefact that it was made of, which any node can fetch; as it is without one."""
    artefact = artefact_of(config.tracking.uri_in(config.storage_folder), release.version)
    if artefact and ArtefactStore(config.storage_path).holds(REGISTER, artefact):
        return FixedSource(release.model_copy(update={"artefact": artefact}), str(config.storage_path))
    return FixedSource(release)
