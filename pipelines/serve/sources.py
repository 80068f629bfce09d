"""The source of a service's release: a fixed bundle, or the champion of a run."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from kcm.bundle.frozen_models import bundle_digest
from kcm.errors import ArtefactError, KcmError
from pipelines.registry.champion import BUNDLE, REGISTER, Current, Pointer
from pipelines.serve.release import Release
from pipelines.store.artefact import ArtefactStore, write_json

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class FixedSource:
    """One fixed release, for `kcm serve --bundle` and `--model`; in a storage if it is an artefact."""

    release: Release
    storage_path: str | None = None

    def first(self) -> Release:
        """The release, its bundle on this node."""
        return self.release.model_copy(update={"bundle": self.folder(self.release)})

    def folder(self, release: Release) -> Path:
        """The folder of a release's bundle on this node, fetched from the storage if needed."""
        if self.storage_path is None or release.artefact is None:
            return release.bundle
        return registered_bundle(ArtefactStore(self.storage_path), release.artefact)


def registered_bundle(store: ArtefactStore, artefact: str, digest: str | None = None) -> Path:
    """The folder of the bundle in an artefact of stage `register`, fetched to this node.

    Raises ArtefactError if the artefact is missing, or its bundle has another digest.
    """
    folder = store.named(REGISTER, artefact).folder / BUNDLE
    if digest is not None and bundle_digest(folder) != digest:
        raise ArtefactError("the bundle differs from the registered one", where=str(folder), hint="Run again")
    return folder


@dataclass(frozen=True)
class ChampionSource:
    """The champion of the run `name`, as the pointer in the storage names it."""

    storage_path: str
    name: str

    @cached_property
    def store(self) -> ArtefactStore:
        """The storage."""
        return ArtefactStore(self.storage_path)

    @cached_property
    def pointer(self) -> Pointer:
        """The champion pointer."""
        return Pointer(self.store.control, self.name)

    def first(self) -> Release:
        """The current champion; if the storage is unavailable, the last champion that this node served.

        Raises KcmError if there is neither.
        """
        try:
            current = self.pointer.current()
        except (OSError, ArtefactError) as error:
            if release := self._last_known():
                logger.warning("the storage is unavailable, %s is the last known champion: %s", release.version, error)
                return release
            raise
        if current is None:
            raise KcmError(
                f"{self.name!r} has no champion", where=self.storage_path, hint="`kcm run CONFIG` makes the first one"
            )
        return self.release_of(current)

    def release_of(self, current: Current) -> Release:
        """The release that the pointer names, with its bundle fetched to this node.

        Raises ArtefactError if the bundle is missing or differs from the registered one.
        """
        champion = current.champion
        bundle = registered_bundle(self.store, champion.bundle, champion.digest)
        release = Release(version=champion.version, bundle=bundle, artefact=champion.bundle)
        write_json(self._last_known_file, release.model_dump(mode="json"))
        return release

    def folder(self, release: Release) -> Path:
        """The folder of a release's bundle on this node, fetched if another node named it."""
        return registered_bundle(self.store, release.artefact) if release.artefact else release.bundle

    @property
    def _last_known_file(self) -> Path:
        return self.store.root / "served" / f"{self.name}.json"

    def _last_known(self) -> Release | None:
        try:
            return Release.model_validate_json(self._last_known_file.read_bytes())
        except (OSError, ValidationError):
            return None


Source = FixedSource | ChampionSource
