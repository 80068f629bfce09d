"""Manifests: what makes the folder of an attempt an artefact, with a hash of every file.

A manifest also holds each file's size and mark (entity tag). An artefact is found again by listing it: a file whose
size or mark is another is hashed, and the artefact is not finished where its content is another too. Damage that leaves
both as they were is found by `kcm verify`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Container, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

from kcm.assets.manifest import sha256_of
from kcm.errors import ArtefactError
from pipelines.store.files import Files, Stat
from pipelines.store.storage import AT_ONCE, Storage

MANIFEST = "manifest.json"
EMPTIED = "emptied"  # in the manifest of one whose files were removed on purpose: it counts as unfinished
ATTEMPT = "attempt-"  # how the folder of an attempt begins
NOTHING: Mapping[str, str] = MappingProxyType({})
SCRATCH = "scratch"  # what an interrupted stage left for its next attempt; gone once the artefact is complete


def publish(
    storage: Storage, home: Path, recipe: Mapping[str, Any], attempt: Path, noted: Mapping[str, str] = NOTHING
) -> bool:
    """Make an attempt the artefact of its home; False where another attempt is it already.

    Files that other nodes have uploaded for the attempt belong to it too; `noted` are hashes that are known, of files
    that are not read again.
    """
    here = file_hashes(attempt, without=noted)
    known = here | dict(noted)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        if storage.is_remote:
            paths = [attempt / name for name in here]
            list(pool.map(storage.files.put, map(storage.name, paths), paths, here.values()))
        there = storage.listed(attempt)
        others = sorted(there.keys() - known.keys())
        hashes = pool.map(storage.files.noted_sha256, [there[name].name for name in others])
        uploaded = dict(zip(others, hashes, strict=True))
    if missing := sorted(known.keys() - there.keys()):
        raise ArtefactError(f"the storage has lost {missing[0]}", where=str(attempt), hint="Start again")
    files = dict(sorted((known | uploaded).items()))
    manifest = dict(recipe) | {"attempt": attempt.name, "files": files, "marks": marks_of(there)}
    return storage.files.create(storage.name(home / MANIFEST), encoded(manifest))


def read_manifest(storage: Storage, home: Path, *, anew: bool = False) -> dict[str, Any]:
    """The manifest of a home; `anew` asks the storage, where there may be another one by now.

    Raises FileNotFoundError where there is none, ValueError for one that is torn.
    """
    here = home / MANIFEST
    if not storage.is_remote or (here.is_file() and not anew):
        return dict(json.loads(here.read_text(encoding="utf-8")))
    content = storage.files.read(storage.name(here))
    manifest = dict(json.loads(content))
    Files.at(home).write(MANIFEST, content)
    return manifest


def marks_of(listed: Mapping[str, Stat]) -> dict[str, list[Any]]:
    """Size and mark of each file, by its name."""
    return {name: [stat.size, stat.mark] for name, stat in sorted(listed.items())}


def file_hashes(folder: Path, *, without: Container[str] = ()) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its relative path."""
    names = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]
    names = [name for name in names if name not in without]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # hashing leaves Python's lock to others
        return dict(zip(names, pool.map(lambda name: sha256_of(folder / name), names), strict=True))


def encoded(value: object) -> bytes:
    """JSON as it is written to files."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()
