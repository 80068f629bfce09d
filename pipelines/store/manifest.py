"""Manifests: what makes the folder of an attempt an artefact, with a hash of every file.

It also holds each file's size and mark (the time of its last change, the entity tag of an object). An
artefact is found again by listing them: a file whose size or mark is another is hashed, and the artefact is not
finished where its content is another too. Damage that leaves both as they were is what `kcm verify` finds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Container, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

from kcm.errors import ArtefactError
from pipelines.store.files import LocalFiles, Stat, digest
from pipelines.store.storage import AT_ONCE, Storage

MANIFEST = "manifest.json"
EMPTIED = "emptied"  # in the manifest of one whose files were removed on purpose: it counts as unfinished
FORMAT = 2  # of manifests; those of format 1, which may lack the number, lie beside their files
ATTEMPT = "attempt-"  # how the folder of an attempt begins
NOTHING: Mapping[str, str] = MappingProxyType({})
SCRATCH = "scratch"  # what an interrupted stage left for its next attempt; gone once the artefact is complete


def publish(
    storage: Storage, home: Path, recipe: Mapping[str, Any], attempt: Path, noted: Mapping[str, str] = NOTHING
) -> bool:
    """Make an attempt the artefact of its home, unless another one is: False.

    Files that other nodes have kept for the attempt belong to it too; `noted` are the hashes of those that are known,
    which are not read again.
    """
    here = file_hashes(attempt, without=noted)
    known = here | dict(noted)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        if storage.is_remote:
            paths = [attempt / name for name in here]
            list(pool.map(storage.files.put, map(storage.name, paths), paths, here.values()))
        there = listed_files(storage, attempt)
        others = sorted(there.keys() - known.keys())
        hashes = pool.map(storage.files.noted_sha256, [there[name].name for name in others])
        kept = dict(zip(others, hashes, strict=True))
    if missing := sorted(known.keys() - there.keys()):
        raise ArtefactError(f"the storage has lost {missing[0]}", where=str(attempt), hint="Start again")
    manifest = dict(recipe) | {
        "format": FORMAT,
        "attempt": attempt.name,
        "files": dict(sorted((known | kept).items())),
        "marks": _marks(there),
    }
    return storage.files.create(storage.name(home / MANIFEST), encoded(manifest))


def read_manifest(storage: Storage, home: Path, *, anew: bool = False) -> dict[str, Any]:
    """The manifest of a home; `anew` asks the storage, where there may be another one by now.

    Raises FileNotFoundError where there is none, ValueError for one that is torn, and ArtefactError for one of a later
    format: what it refers to, and how, is not known here.
    """
    here = home / MANIFEST
    if storage.is_remote and (anew or not here.is_file()):
        content = storage.files.read(storage.name(here))
        manifest: dict[str, Any] = json.loads(content)
        here.parent.mkdir(parents=True, exist_ok=True)
        LocalFiles(home).write(MANIFEST, content)
    else:
        manifest = dict(json.loads(here.read_text(encoding="utf-8")))
    if manifest.get("format", 1) > FORMAT:
        raise ArtefactError(
            f"written in format {manifest['format']}, this version reads up to {FORMAT}",
            where=str(home),
            hint="Use the newer version, or another storage_path",
        )
    return manifest


def marks_of(storage: Storage, folder: Path) -> dict[str, list[Any]]:
    """The size and the mark of every file of an attempt, by its name in it."""
    return _marks(listed_files(storage, folder))


def _marks(listed: Mapping[str, Stat]) -> dict[str, list[Any]]:
    return {name: [stat.size, stat.mark] for name, stat in sorted(listed.items())}


def listed_files(storage: Storage, folder: Path) -> dict[str, Stat]:
    """The files of an attempt, or of a home of format 1, by their names in it."""
    above = storage.name(folder)
    listed = {os.path.relpath(stat.name, above): stat for stat in storage.files.list(above)}
    return {name: stat for name, stat in listed.items() if _belongs(name)}


def encoded(value: object) -> bytes:
    """JSON as it is written to files."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def file_hashes(folder: Path, *, without: Container[str] = ()) -> dict[str, str]:
    """SHA-256 of every file below a folder by its relative path; of a home without manifest, scratch and attempts."""
    names = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]
    names = [name for name in names if _belongs(name) and name not in without]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # hashing leaves Python's lock to others
        return dict(zip(names, pool.map(lambda name: digest(folder / name), names), strict=True))


def _belongs(name: str) -> bool:
    """Whether a file of a home belongs to the artefact."""
    top = name.split("/")[0]
    return top not in (MANIFEST, SCRATCH) and not top.startswith(ATTEMPT)
