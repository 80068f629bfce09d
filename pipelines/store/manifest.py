"""Manifests: what makes the folder of an attempt an artefact, with a hash of every file.

A manifest also holds each file's size and mark (entity tag). An artefact is found again by listing it: a file whose
size or mark is another is hashed, and the artefact is not finished where its content is another too. Damage that leaves
both as they were is found by `kcm verify`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kcm.errors import ArtefactError
from pipelines.store.files import Files, Stat
from pipelines.store.storage import AT_ONCE, Storage

MANIFEST = "manifest.json"
EMPTIED = "emptied"  # in the manifest of one whose files were removed on purpose: it counts as unfinished
ATTEMPT = "attempt-"  # how the folder of an attempt begins
SCRATCH = "scratch"  # what an interrupted stage left for its next attempt; gone once the artefact is complete


def publish(storage: Storage, home: Path, recipe: Mapping[str, Any], attempt: Path) -> bool:
    """Make an attempt the artefact of its home; False where another attempt is it already.

    Files that other nodes have uploaded for the attempt belong to it too.
    """
    here = {path for path in attempt.rglob("*") if path.is_file()}
    if storage.is_remote:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(storage.keep, here))
    there = storage.listed(attempt)
    if missing := here - {attempt / name for name in there}:
        raise ArtefactError(f"the storage has lost {min(missing)}", where=str(attempt), hint="Start again")
    manifest = dict(recipe) | {"attempt": attempt.name} | described(storage, there)
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


def described(storage: Storage, listed: Mapping[str, Stat]) -> dict[str, Any]:
    """What a manifest says of files: their SHA-256, which is not computed anew where it was sent with an object."""
    names = sorted(listed)
    with ThreadPoolExecutor(AT_ONCE) as pool:  # hashing leaves Python's lock to others
        hashes = pool.map(storage.files.noted_sha256, [listed[name].name for name in names])
        return {"files": dict(zip(names, hashes, strict=True)), "marks": marks_of(listed)}


def encoded(value: object) -> bytes:
    """JSON as it is written to files."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()
