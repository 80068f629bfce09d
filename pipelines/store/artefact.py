"""Artefacts: what stages read and write, named by a fingerprint, complete once their manifest is there.

The fingerprint covers the stage and its version, its own configuration and the fingerprints of what it read; never
worker counts or paths. The manifest is written last and holds a hash of every file, so that a half-written or
damaged artefact is never taken for a finished one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from kcm.errors import ArtefactError
from kcm.redact import redacted_values
from pipelines.store.lock import locked

MANIFEST = "manifest.json"
FORMAT = 1  # of manifests; those without a number are of format 1
SCRATCH = "scratch"  # what an interrupted stage left for its next attempt; gone once the artefact is complete


ArtefactT = TypeVar("ArtefactT", bound="Artefact")


@dataclass(frozen=True)
class Artefact:
    """A finished stage's output: a folder that will not change. A subclass for each kind knows the files in it."""

    kind: ClassVar[str]  # what stages that read it call it; several stages may write one kind

    stage: str
    fingerprint: str
    folder: Path

    @property
    def manifest(self) -> dict[str, Any]:
        """The stage, version, configuration, inputs, and file hashes."""
        manifest: dict[str, Any] = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))
        return manifest

    def as_a(self, view: type[ArtefactT]) -> ArtefactT:
        """The same artefact, with what its kind knows of its files."""
        return view(self.stage, self.fingerprint, self.folder)

    def source(self, view: type[ArtefactT], *stages: str) -> ArtefactT:
        """The artefact of one of `stages` that this one was made of, directly or through others.

        Raises ArtefactError where there is none.
        """
        if found := self._source(stages):
            return found.as_a(view)
        raise ArtefactError(f"made of no artefact of stage {' or '.join(stages)}", where=str(self.folder))

    def _source(self, stages: tuple[str, ...]) -> Artefact | None:
        folder = self.folder.parents[1]
        inputs = [Artefact(stage, name, folder / stage / name) for stage, name in self.manifest["inputs"].items()]
        direct = (each for each in inputs if each.stage in stages)
        return next(direct, None) or next(filter(None, (each._source(stages) for each in inputs)), None)


@dataclass(frozen=True)
class Recipe:
    """All that decides an artefact's content."""

    stage: str
    version: int
    section: Mapping[str, Any]
    inputs: tuple[Artefact, ...] = ()

    @property
    def fingerprint(self) -> str:
        """64 bits of SHA-256 over the canonical JSON of the recipe, as hexadecimal."""
        text = json.dumps(self.as_json(), sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def as_json(self) -> dict[str, Any]:
        """The recipe as plain data."""
        return {
            "stage": self.stage,
            "version": self.version,
            "section": dict(self.section),
            "inputs": {artefact.stage: artefact.fingerprint for artefact in self.inputs},
        }


class ArtefactStore:
    """Artefacts below one folder, which all nodes of the cluster see."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".writable-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise ArtefactError(
                f"cannot write: {error.strerror}", where=str(self.root), mend="Choose another storage_path"
            ) from error

    def folder(self, recipe: Recipe) -> Path:
        """Where the artefact of a recipe lies, finished or not."""
        return self.root / "artefacts" / recipe.stage / recipe.fingerprint

    def find(self, recipe: Recipe) -> Artefact | None:
        """The finished artefact of a recipe; one whose files are not what its manifest says is not finished."""
        folder = self.folder(recipe)
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        if manifest.get("format", 1) > FORMAT:
            raise ArtefactError(
                f"written in format {manifest['format']}, this version reads up to {FORMAT}",
                where=str(folder),
                mend="Use the newer version, or another storage_path",
            )
        if manifest["files"] != _hashes(folder):
            return None
        return Artefact(recipe.stage, recipe.fingerprint, folder)

    def finished(self, stage: str) -> list[Artefact]:
        """All finished artefacts of a stage, the newest first; their files are not verified."""
        manifests = [path for path in (self.root / "artefacts" / stage).glob(f"*/{MANIFEST}") if path.is_file()]
        newest = sorted(manifests, key=lambda path: path.stat().st_mtime_ns, reverse=True)
        return [Artefact(stage, path.parent.name, path.parent) for path in newest]

    def build(self, recipe: Recipe, write: Callable[[Path, Path], None]) -> tuple[Artefact, bool]:
        """The artefact of a recipe, and whether it was there already.

        `write(folder, scratch)` fills the folder; what it keeps in `scratch` is there again if it is interrupted.
        LockedError while another process writes the same artefact.
        """
        if found := self.find(recipe):
            return found, True
        folder = self.folder(recipe)
        with storage_errors(folder), locked(folder, f"the {recipe.stage} artefact"):
            if found := self.find(recipe):
                return found, True
            self._clear(folder)
            scratch = folder / SCRATCH
            scratch.mkdir(parents=True, exist_ok=True)
            write(folder, scratch)
            shutil.rmtree(scratch)
            write_json(
                folder / MANIFEST, redacted_values(recipe.as_json()) | {"format": FORMAT, "files": _hashes(folder)}
            )
        return Artefact(recipe.stage, recipe.fingerprint, folder), False

    @staticmethod
    def _clear(folder: Path) -> None:
        """Remove what a damaged or interrupted attempt left, but for its scratch."""
        for path in folder.iterdir() if folder.exists() else ():
            if path.name == SCRATCH:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def write_json(path: Path, value: object) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    draft.replace(path)


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into errors that say how to mend them."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ArtefactError(
                "the disk is full", where=str(folder), mend="Free some space and start again: finished work is kept"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise ArtefactError(
                f"cannot write: {error.strerror}", where=str(folder), mend="Choose another storage_path"
            ) from error
        raise


def _hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): _digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST and SCRATCH not in path.relative_to(folder).parts
    }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
