"""Artefacts: what stages read and write, named by a fingerprint, complete once their manifest is there.

The fingerprint covers the stage and its version, its own configuration and the fingerprints of what it read; never
worker counts or paths. Every attempt writes into a folder of its own. The manifest is written last, holds a hash of
every file and names the attempt that won: of two writers one wins, and a half-written or damaged artefact is never
taken for a finished one. A lease keeps two processes from doing the same work; correctness does not rest on it.

    STORAGE/artefacts/STAGE/FINGERPRINT/manifest.json
                                       /attempt-XXXXXXXX/...    the files
                                       /scratch/...             what an interrupted attempt left for the next one
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from kcm.durable import create_durably
from kcm.errors import ArtefactError
from kcm.redact import redacted_values
from pipelines.store.control import Control
from pipelines.store.lease import leased

MANIFEST = "manifest.json"
FORMAT = 2  # of manifests; those of format 1, which may lack the number, lie beside their files
CONTROL = "control"  # leases, below the storage path
ATTEMPT = "attempt-"  # how the folder of an attempt begins
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
    def home(self) -> Path:
        """The folder that is named after the fingerprint and holds the manifest."""
        return self.folder if self.folder.name == self.fingerprint else self.folder.parent

    @property
    def manifest(self) -> dict[str, Any]:
        """The stage, version, configuration, inputs, attempt and file hashes."""
        return _read_manifest(self.home)

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
        artefacts = self.home.parents[1]
        inputs = [_finished(artefacts / stage / name) for stage, name in self.manifest["inputs"].items()]
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

    @property
    def control(self) -> Control:
        """The records that several processes may write."""
        return Control(self.root / CONTROL)

    def home(self, recipe: Recipe) -> Path:
        """Where the artefact of a recipe lies, finished or not."""
        return self.root / "artefacts" / recipe.stage / recipe.fingerprint

    def find(self, recipe: Recipe) -> Artefact | None:
        """The finished artefact of a recipe; one whose files are not what its manifest says is not finished."""
        home = self.home(recipe)
        try:
            manifest = _read_manifest(home)
        except (FileNotFoundError, ValueError):
            return None
        if manifest.get("format", 1) > FORMAT:
            raise ArtefactError(
                f"written in format {manifest['format']}, this version reads up to {FORMAT}",
                where=str(home),
                mend="Use the newer version, or another storage_path",
            )
        found = _finished(home)
        return found if manifest["files"] == file_hashes(found.folder) else None

    def named(self, stage: str, fingerprint: str) -> Artefact:
        """The finished artefact of a stage with this fingerprint, not verified; ArtefactError where there is none."""
        home = self.root / "artefacts" / stage / fingerprint
        if not (home / MANIFEST).is_file():
            raise ArtefactError(
                f"the {stage} artefact {fingerprint} is missing", where=str(home), mend="Put it back, or run again"
            )
        return _finished(home)

    def finished(self, stage: str) -> list[Artefact]:
        """All finished artefacts of a stage, the newest first; their files are not verified."""
        manifests = [path for path in (self.root / "artefacts" / stage).glob(f"*/{MANIFEST}") if path.is_file()]
        newest = sorted(manifests, key=lambda path: path.stat().st_mtime_ns, reverse=True)
        found = []
        for path in newest:
            with suppress(ValueError):  # torn by a crash
                found.append(_finished(path.parent))
        return found

    def build(self, recipe: Recipe, write: Callable[[Path, Path], None]) -> tuple[Artefact, bool]:
        """The artefact of a recipe, and whether it was there already.

        `write(folder, scratch)` fills the folder of an attempt; what it keeps in `scratch` is there again if it is
        interrupted. LockedError while another process writes the same artefact.
        """
        if found := self.find(recipe):
            return found, True
        home, key = self.home(recipe), f"leases/{recipe.stage}/{recipe.fingerprint}"
        with storage_errors(home), leased(self.control, key, f"the {recipe.stage} artefact"):
            if found := self.find(recipe):
                return found, True
            self._clear(home)
            attempt, scratch = home / f"{ATTEMPT}{uuid.uuid4().hex[:8]}", home / SCRATCH
            attempt.mkdir(parents=True)
            scratch.mkdir(exist_ok=True)
            write(attempt, scratch)
            won = publish(home, redacted_values(recipe.as_json()), attempt)
            shutil.rmtree(scratch, ignore_errors=True)
        if won:
            return Artefact(recipe.stage, recipe.fingerprint, attempt), False
        shutil.rmtree(attempt)  # a process that took the lease away, since this one was silent, was quicker
        return _finished(home), True

    @staticmethod
    def _clear(home: Path) -> None:
        """Remove what damaged or interrupted attempts left, but for their scratch."""
        for path in home.iterdir() if home.exists() else ():
            if path.name == SCRATCH:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def publish(home: Path, recipe: Mapping[str, Any], attempt: Path) -> bool:
    """Make an attempt the artefact of its home, unless another one is: False."""
    manifest = dict(recipe) | {"format": FORMAT, "attempt": attempt.name, "files": file_hashes(attempt)}
    return create_durably(home / MANIFEST, (json.dumps(manifest, indent=2, allow_nan=False) + "\n").encode())


def _read_manifest(home: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((home / MANIFEST).read_text(encoding="utf-8"))
    return manifest


def _finished(home: Path) -> Artefact:
    """The artefact of a home, in the attempt that its manifest names."""
    attempt = ""  # before format 2
    with suppress(FileNotFoundError):
        attempt = _read_manifest(home).get("attempt", "")
    return Artefact(home.parent.name, home.name, home / attempt)


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


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder by its relative path; of a home without manifest, scratch and attempts."""

    def belongs(path: Path) -> bool:
        top = path.relative_to(folder).parts[0]
        return path.is_file() and top not in (MANIFEST, SCRATCH) and not top.startswith(ATTEMPT)

    return {str(path.relative_to(folder)): _digest(path) for path in sorted(folder.rglob("*")) if belongs(path)}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
