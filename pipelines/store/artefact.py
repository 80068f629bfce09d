"""Artefacts: the inputs and outputs of stages, named by a fingerprint, complete once their manifest exists.

The fingerprint covers the stage and its version, its configuration and the fingerprints of its inputs; never worker
counts or paths. Every attempt writes to a folder of its own. The manifest is written last, and only if there is none.
It holds a hash of every file and names the attempt that won. So one of two writers wins, and a half-written artefact
never counts as finished. A lease keeps two processes from doing the same work; correctness does not depend on it.

    STORAGE/artefacts/STAGE/FINGERPRINT/manifest.json
                                       /attempt-XXXXXXXX/...    the files
                                       /scratch/...             what an interrupted attempt left for the next one

For a storage in a bucket, the bucket has this layout, and so has each node's folder for it: attempts are written to the
folder and uploaded; finished files are fetched on first use and checked against their hashes.

A manifest also holds each file's size and mark (entity tag). Finding an artefact lists its files: a file with another
size or mark is hashed, and the artefact is unfinished if the content differs. Damage that changes neither size nor mark
shows when the file is read: pages of Parquet have checksums.
"""

from __future__ import annotations

import errno
import hashlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, ClassVar, TypeVar

from kcm.errors import MAKE_ROOM, ArtefactError, LockedError, is_disk_full
from kcm.local_files import drafted
from kcm.redact import redacted_values
from pipelines.store.files import Files, Stat
from pipelines.store.lease import leased
from pipelines.store.records import Control
from pipelines.store.storage import THIS_NODE, Storage, at_once

MANIFEST = "manifest.json"
ATTEMPT = "attempt-"  # prefix of an attempt's folder
SCRATCH = (
    "scratch"  # an interrupted stage leaves files here for its next attempt; removed once the artefact is complete
)


def publish(storage: Storage, home: Path, recipe: Mapping[str, Any], attempt: Path) -> bool:
    """Make an attempt the artefact of its home; False if another attempt already is.

    Files that other nodes have uploaded for the attempt belong to it.
    """
    local_files = {path for path in attempt.rglob("*") if path.is_file()}
    if storage.is_remote:
        at_once(storage.keep, local_files)
    stored_files = storage.listed(attempt)
    if missing := local_files - {attempt / name for name in stored_files}:
        raise ArtefactError(f"the storage has lost {min(missing)}", where=str(attempt), hint="Start again")
    manifest = dict(recipe) | {"attempt": attempt.name} | described(storage, stored_files)
    return storage.files.create(storage.name(home / MANIFEST), encoded(manifest))


def read_manifest(storage: Storage, home: Path, *, anew: bool = False) -> dict[str, Any]:
    """The manifest of a home; `anew` reads it from the storage again, in case it was replaced.

    Raises FileNotFoundError if there is none, and ValueError if it is torn.
    """
    manifest_file = home / MANIFEST
    if not storage.is_remote or (manifest_file.is_file() and not anew):
        return dict(json.loads(manifest_file.read_text(encoding="utf-8")))
    content = storage.files.read(storage.name(manifest_file))
    manifest = dict(json.loads(content))
    Files.at(home).write(MANIFEST, content)
    return manifest


def _mark(stat: Stat) -> list[Any]:
    """What tells whether a file has changed."""
    return [stat.size, stat.mark]


def described(storage: Storage, listed: Mapping[str, Stat]) -> dict[str, Any]:
    """The manifest's entry for files: their SHA-256, computed only if the object does not carry it."""
    names = sorted(listed)
    hashes = at_once(storage.files.noted_sha256, [listed[name].name for name in names])
    return {"files": dict(zip(names, hashes, strict=True)), "marks": {name: _mark(listed[name]) for name in names}}


def encoded(value: object) -> bytes:
    """JSON as it is written to files."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


ARTEFACTS, CONTROL = "artefacts", "control"  # finished work; leases and pointers, below the storage path
LAYOUT = "layout"  # the file below the storage path that holds its layout
CURRENT_LAYOUT = b"2\n"  # layout 1 kept its looks in ledger.json, which nothing reads any more
_whole: set[Path] = set()  # attempts fetched by this process


ArtefactT = TypeVar("ArtefactT", bound="Artefact")


@dataclass(frozen=True)
class Artefact:
    """The output of a finished stage: a folder that will not change. A subclass per kind knows the files in it.

    `path` is the local folder; `storage` can fetch its files on any node.
    """

    kind: ClassVar[str]  # what stages that read it call it; several stages may write one kind

    stage: str
    fingerprint: str
    path: Path
    storage: Storage = field(default=THIS_NODE, compare=False, repr=False)

    @property
    def is_remote(self) -> bool:
        """Whether the files have to be fetched."""
        return self.storage.is_remote

    @property
    def folder(self) -> Path:
        """The folder with all files, fetched from the bucket if they are not local yet.

        Raises ArtefactError for a file that differs from the manifest.
        """
        if self.is_remote and not (self.path in _whole and self.path.is_dir()):
            for name in self.manifest["files"]:
                self.file(name)
            _whole.add(self.path)
        return self.path

    def file(self, name: str) -> Path:
        """One file of the folder, fetched if it is not local yet. Raises ArtefactError like `folder`."""
        path = self.path / name
        if not self.is_remote or path.is_file():
            return path
        try:
            return self.storage.fetch(path, self.manifest["files"].get(name, ""))
        except FileNotFoundError:
            raise ArtefactError("the file is missing", where=str(path), hint="Run the stage again") from None

    def json(self, name: str) -> Any:
        """The content of a JSON file of the folder."""
        return json.loads(self.file(name).read_text(encoding="utf-8"))

    def below(self, name: str) -> Path:
        """A subfolder with its own files (not those in deeper folders), fetched if they are not local yet."""
        for file_name in self.manifest["files"] if self.is_remote else ():
            if PurePosixPath(file_name).parent == PurePosixPath(name):
                self.file(file_name)
        return self.path / name

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return name in self.manifest["files"] if self.is_remote else (self.path / name).is_file()

    def readable(self, name: str) -> Path | BinaryIO:
        """A source that pyarrow can read. Only the ranges read of a remote file are fetched; no hash is checked."""
        return self.storage.readable(self.path / name)

    @property
    def where(self) -> str:
        """The location of the folder, for people: its path, or its URI."""
        return self.storage.where(self.path)

    @property
    def home(self) -> Path:
        """The folder that is named after the fingerprint and holds the manifest."""
        return self.path if self.path.name == self.fingerprint else self.path.parent

    @property
    def manifest(self) -> dict[str, Any]:
        """The stage, version, configuration, inputs, attempt and file hashes."""
        return read_manifest(self.storage, self.home)

    def as_a(self, view: type[ArtefactT]) -> ArtefactT:
        """The same artefact as an instance of the class of its kind."""
        return view(self.stage, self.fingerprint, self.path, self.storage)

    def source(self, view: type[ArtefactT], *stages: str) -> ArtefactT:
        """The artefact of one of `stages` from which this one was made, directly or indirectly.

        Raises ArtefactError if there is none.
        """
        if source := self._source(stages):
            return source.as_a(view)
        raise ArtefactError(f"made of no artefact of stage {' or '.join(stages)}", where=str(self.path))

    def _source(self, stages: tuple[str, ...]) -> Artefact | None:
        direct = (artefact for artefact in self.inputs() if artefact.stage in stages)
        further = (artefact._source(stages) for artefact in self.inputs())
        return next(direct, None) or next(filter(None, further), None)

    def inputs(self) -> Iterator[Artefact]:
        """The artefacts from which this one was made directly."""
        for stage, name in self.manifest["inputs"].items():
            yield finished_at(self.storage, self.home.parents[1] / stage / name)


@dataclass(frozen=True)
class Recipe:
    """Everything that determines the content of an artefact."""

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
    """Artefacts below one storage path that all nodes of the cluster see: a folder, or the URI of a bucket.

    Raises ArtefactError for a place that is not writable.
    """

    def __init__(self, place: str | Path) -> None:
        self.storage = Storage.at(place)
        self.root = self.storage.root
        probe = f".writable-{uuid.uuid4().hex[:8]}"
        try:
            with storage_errors(self.root):
                self.root.mkdir(parents=True, exist_ok=True)
                self.storage.files.create(probe, b"")
                self.storage.files.delete([probe])
                self._require_layout()
        except OSError as error:
            raise ArtefactError(
                f"cannot write: {error.strerror}", where=str(self.root), hint="Choose another storage_path"
            ) from error

    def _require_layout(self) -> None:
        """Record the layout of a new storage. ArtefactError for a storage with another layout."""
        files = self.storage.files
        if files.create(LAYOUT, CURRENT_LAYOUT) or files.read(LAYOUT) == CURRENT_LAYOUT:
            return
        raise ArtefactError(
            "the storage was written in another layout, by another version of kcm",
            where=files.uri,
            hint="Use another storage_path",
        )

    @classmethod
    def existing(cls, place: str | Path) -> ArtefactStore:
        """The store at a place that is one already. ArtefactError if there are no artefacts."""
        if next(Storage.at(place).files.list(ARTEFACTS), None) is None:
            raise ArtefactError("no artefacts here", where=str(place), hint="Give the storage_path of a run")
        return cls(place)

    @property
    def control(self) -> Control:
        """The records that several processes may write."""
        return Control(self.storage.files.below(CONTROL))

    @property
    def ledger(self) -> Files:
        """The ledger: looks at tables, by question."""
        return self.storage.files.below(f"{CONTROL}/ledger")

    def home(self, recipe: Recipe) -> Path:
        """The home of a recipe's artefact, finished or not."""
        return self.root / ARTEFACTS / recipe.stage / recipe.fingerprint

    def find(self, recipe: Recipe) -> Artefact | None:
        """The finished artefact of a recipe; an artefact whose files differ from its manifest is unfinished."""
        home = self.home(recipe)
        try:
            read_manifest(self.storage, home, anew=True)
        except (FileNotFoundError, ValueError):
            return None
        artefact = finished_at(self.storage, home)
        return artefact if next(damaged_files(self.storage, artefact), None) is None else None

    def named(self, stage: str, fingerprint: str) -> Artefact:
        """The finished artefact of a stage with this fingerprint, unverified; ArtefactError if there is none."""
        home = self.root / ARTEFACTS / stage / fingerprint
        with suppress(FileNotFoundError):
            read_manifest(self.storage, home, anew=True)
            return finished_at(self.storage, home)
        raise ArtefactError(
            f"the {stage} artefact {fingerprint} is missing", where=str(home), hint="Put it back, or run again"
        )

    def holds(self, stage: str, fingerprint: str) -> bool:
        """Whether there is a finished artefact of a stage with this fingerprint."""
        with suppress(ArtefactError):
            self.named(stage, fingerprint)
            return True
        return False

    def finished(self, stage: str) -> list[Artefact]:
        """All finished artefacts of a stage (of all stages for ""), newest first; their files are not verified."""
        artefacts = []
        for home in self.homes(stage):
            with suppress(ValueError, FileNotFoundError):  # torn by a crash
                read_manifest(self.storage, home, anew=True)
                artefacts.append(finished_at(self.storage, home))
        return artefacts

    def homes(self, stage: str = "") -> list[Path]:
        """The homes with a manifest, latest first; of one stage, or of all."""
        folder = f"{ARTEFACTS}/{stage}" if stage else ARTEFACTS
        manifests = f"{ARTEFACTS}/*/*/{MANIFEST}"
        listed = [stat for stat in self.storage.files.list(folder) if PurePosixPath(stat.name).match(manifests)]
        newest = sorted(listed, key=lambda stat: (stat.modified, stat.mark), reverse=True)
        return [(self.root / stat.name).parent for stat in newest]

    def build(self, recipe: Recipe, write: Callable[[Path, Path], object]) -> tuple[Artefact, bool]:
        """The artefact of a recipe. The second value is True if it existed already.

        `write(folder, scratch)` fills the folder of an attempt. If it is interrupted, files that it kept in `scratch`
        are available to the next attempt on any node. Raises LockedError while another process writes the same
        artefact.
        """
        if artefact := self.find(recipe):
            return artefact, True
        home, key = self.home(recipe), f"leases/{recipe.stage}/{recipe.fingerprint}"
        with storage_errors(home), leased(self.control, key, f"the {recipe.stage} artefact") as lease:
            if artefact := self.find(recipe):
                return artefact, True
            self._clear(home)
            attempt, scratch = home / f"{ATTEMPT}{uuid.uuid4().hex[:8]}", home / SCRATCH
            attempt.mkdir(parents=True)
            scratch.mkdir(exist_ok=True)
            self.storage.forget(scratch)
            write(attempt, scratch)
            won = lease.held and publish(self.storage, home, redacted_values(recipe.as_json()), attempt)
            if not won:  # another process took the lease, because this one was silent
                self.storage.drop([attempt])
            artefact = (
                self.find(recipe) if not won else Artefact(recipe.stage, recipe.fingerprint, attempt, self.storage)
            )
            if artefact:
                self.storage.drop([scratch])
                return artefact, not won
        raise LockedError(f"another process took over the {recipe.stage} artefact", where=key, hint="Start again")

    def _clear(self, home: Path) -> None:
        """Remove what damaged or interrupted attempts left, except their scratch."""
        tops = {name.split("/")[0] for name in self.storage.names(home)}
        names = {path.name for path in home.iterdir()} if home.exists() else set()
        self.storage.drop(home / top for top in sorted(tops | names) if top != SCRATCH)


def finished_at(storage: Storage, home: Path) -> Artefact:
    """The artefact of a home, in the attempt that its manifest names."""
    return Artefact(home.parent.name, home.name, home / read_manifest(storage, home)["attempt"], storage)


def damaged_files(storage: Storage, artefact: Artefact) -> Iterator[str]:
    """Files of an artefact that are missing, unexpected, or different from the manifest.

    A file with the recorded size and mark counts as sound.
    """
    manifest = artefact.manifest
    hashes, marks, stored_files = manifest["files"], manifest["marks"], storage.listed(artefact.path)
    yield from sorted(hashes.keys() ^ stored_files.keys())
    for name in sorted(hashes.keys() & stored_files.keys()):
        stat = stored_files[name]
        if marks.get(name) != _mark(stat) and storage.files.sha256(stat.name) != hashes[name]:
            yield name


def write_json(path: Path, value: object) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it."""
    with drafted(path) as draft:
        draft.write_bytes(encoded(value))


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into errors that say how to fix them."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise ArtefactError("the disk is full", where=str(folder), hint=MAKE_ROOM) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise ArtefactError(
                f"cannot write: {error.strerror}", where=str(folder), hint="Choose another storage_path"
            ) from error
        raise
