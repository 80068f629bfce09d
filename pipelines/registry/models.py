"""Registered models: resolving a name to a version, and a verified copy of its bundle."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from kcm.bundle.frozen_models import bundle_digest
from kcm.errors import ArtefactError, KcmError
from kcm.inputs.location import cache_folder
from kcm.local_files import replace_durably
from pipelines.tracking.config import CHAMPION, DIGEST_TAG, SCHEME, SQLITE
from pipelines.tracking.tracking import FINGERPRINT_TAG, fetch_model

_IN_STORAGE = Path("storage") / "mlflow.db"  # the default storage of runs


def fetch_verified(uri: str, model: str, root: Path) -> tuple[str, Path]:
    """The version NAME/NUMBER of NAME@ALIAS or NAME/NUMBER, and its bundle, downloaded once below `root`.

    The scheme models:/ may precede either form.

    The copy is named after the registry and the bundle's digest, because numbers restart at 1 in a new registry. Raises
    KcmError if there is no such version, and ArtefactError if the bundle differs from the registered one.
    """
    model = model.removeprefix(SCHEME)
    version, registered = _registered(uri, model)
    key = hashlib.sha256(f"{uri}\0{registered}".encode()).hexdigest()[:16]
    folder = root / version / key
    if not folder.exists():
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=folder.parent, prefix="."
        ) as draft:  # atomic: the copy appears whole or not at all
            replace_durably(fetch_model(uri, version, Path(draft)), folder)
    if (digest := bundle_digest(folder)) != registered:
        raise ArtefactError(
            f"the bundle of {version} differs from the registered one: digest {digest[:12]}, not {registered[:12]}",
            where=str(folder),
            hint="Delete the folder; if it differs again, find out who changed the bundle in the artifact store",
        )
    return version, folder


def artefact_of(uri: str, version: str) -> str | None:
    """The artefact of stage `register` behind a version NAME/NUMBER."""
    return _resolved(uri, version).tags.get(FINGERPRINT_TAG)


def fetch(source: str) -> Path:
    """The bundle of `models:/NAME@ALIAS`, `models:/NAME/NUMBER` or `models:/NAME` (its champion), for `kcm.load`.

    MLflow's setting names the registry (`mlflow.set_tracking_uri`, MLFLOW_TRACKING_URI). Without a setting it is the
    registry of the runs in the local `storage`. Copies are kept in KCM_CACHE, by default the user's cache folder.
    """
    model = source.removeprefix(SCHEME)
    if model == source or not model:
        raise KcmError(f"not a registered model: {source!r}", hint="Write models:/NAME@ALIAS or models:/NAME/VERSION")
    return fetch_registered(model)[1]


def fetch_registered(model: str) -> tuple[str, Path]:
    """`fetch_verified` in the registry and the cache of `fetch`."""
    return fetch_verified(_registry(), model, cache_folder() / "models")


def _registry() -> str:
    local = f"{SQLITE}{_IN_STORAGE.absolute()}" if _IN_STORAGE.exists() else ""
    return local if local and not mlflow.is_tracking_uri_set() else str(mlflow.get_registry_uri())


def _registered(uri: str, model: str) -> tuple[str, str]:
    """Version and digest of NAME@ALIAS or NAME/VERSION."""
    resolved = _resolved(uri, model)
    version = f"{resolved.name}/{resolved.version}"
    if (digest := resolved.tags.get(DIGEST_TAG)) is None:
        hint = "Start its run again, which records the digest"
        raise ArtefactError(f"{version} was registered without a digest", where=uri, hint=hint)
    return version, digest


def _resolved(uri: str, model: str) -> ModelVersion:
    """The version of NAME@ALIAS or NAME/VERSION."""
    database = Path(uri.removeprefix(SQLITE))
    if uri.startswith(SQLITE) and not database.exists():  # a client would create it
        hint = "Start `kcm run` first, or name the registry of other runs by `tracking.uri` or MLFLOW_TRACKING_URI"
        raise KcmError(
            f"no registered model {model!r}: no runs are recorded here", where=str(database.parent), hint=hint
        )
    name, at, alias = model.partition("@")
    if "/" not in model and not alias:
        at, alias = "@", CHAMPION
    try:
        client = MlflowClient(uri)
        if at:
            return client.get_model_version_by_alias(name, alias)
        name, _, number = model.rpartition("/")
        return client.get_model_version(name, number)
    except MlflowException as error:
        hint = "Register a model with `kcm run`, or name a registered one"
        raise KcmError(f"no registered model {model!r}", where=uri, hint=hint) from error
