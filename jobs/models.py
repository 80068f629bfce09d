"""Resolves the model of a command: a bundle in a folder, a registered version, or the champion of a run."""

from __future__ import annotations

from pathlib import Path

from kcm import extras
from kcm.bundle.frozen_models import FrozenModels
from kcm.errors import KcmError
from pipelines.config import RunConfig
from pipelines.registry.champion import REGISTER, Pointer
from pipelines.serve.release import Release
from pipelines.serve.sources import ChampionSource, FixedSource, Source, registered_bundle
from pipelines.store.artefact import ArtefactStore
from pipelines.tracking.config import CHAMPION, SCHEME


def served_folder(bundle: Path) -> Release:
    """A bundle in a folder; its version is the start of its digest. ArtefactError if there is none."""
    return Release(version=FrozenModels.read_models(bundle).digest[:12], bundle=bundle.absolute())


def champion_bundle(config: RunConfig, model: str) -> Path | None:
    """The champion's bundle, if models:/NAME or models:/NAME@champion names the run's own champion; else None.

    The pointer in the storage names it, and MLflow is not imported. Raises ArtefactError for a bundle that changed.
    """
    if model.removeprefix(SCHEME) not in (config.name, f"{config.name}@{CHAMPION}"):
        return None
    store = ArtefactStore(config.storage_path)
    current = Pointer(store.control, config.name).current()
    if current is None:
        return None
    return registered_bundle(store, current.champion.bundle, current.champion.digest)


def served_model(config: RunConfig | None, model: str | None) -> Release:
    """A registered model by NAME@ALIAS or NAME/VERSION, by default the champion of the run; downloaded once.

    Without a run, its registry is the registry of `kcm.load`. The alias is resolved here, so all replicas load the same
    version even if the alias moves. Raises ArtefactError for a bundle that differs from the registered one, KcmError if
    neither a run nor a model is named.
    """
    if config is None:
        if model is None:
            raise KcmError("no model is named", hint="Name a run, a bundle or a registered model")
        version, folder = extras.load("pipelines.registry.models:fetch_registered", model)(model)
        return Release(version=version, bundle=folder)
    uri = config.tracking.uri_in(config.storage_folder)
    name_or_uri = model or f"{config.name}@{CHAMPION}"
    fetch_verified = extras.load("pipelines.registry.models:fetch_verified", name_or_uri)
    version, folder = fetch_verified(uri, name_or_uri, config.storage_folder / "served")
    return Release(version=version, bundle=folder)


def served_source(config: RunConfig | None, bundle: Path | None, model: str | None) -> Source:
    """The source of a service: a fixed bundle or registered model, or by default the champion of the run."""
    if bundle:
        return FixedSource(served_folder(bundle))
    if model or config is None:
        release = served_model(config, model)
        return _from_bucket(config, release) if config and "://" in str(config.storage_path) else FixedSource(release)
    return ChampionSource(str(config.storage_path), config.name)


def _from_bucket(config: RunConfig, release: Release) -> FixedSource:
    """A registered version as its original artefact, which any node can fetch; unchanged if it has none."""
    uri = config.tracking.uri_in(config.storage_folder)
    artefact = extras.load("pipelines.registry.models:artefact_of", uri)(uri, release.version)
    if artefact and ArtefactStore(config.storage_path).holds(REGISTER, artefact):
        return FixedSource(release.model_copy(update={"artefact": artefact}), str(config.storage_path))
    return FixedSource(release)
