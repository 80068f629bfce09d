"""Taking along what an earlier version wrote: nothing that was computed or paid for is computed or paid for again."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.store.artefact import ArtefactStore, damaged_files, finished_at, storage_errors, write_json
from pipelines.store.control.lease import leased
from pipelines.store.manifest import ATTEMPT, FORMAT, MANIFEST, SCRATCH, encoded, file_hashes, marks_of, read_manifest

MIGRATED = f"{ATTEMPT}migrated"


@dataclass
class Migrated:
    """What became of a storage's artefacts."""

    moved: int = 0
    current: int = 0
    damaged: int = 0  # left as they are; the stage computes them anew when it is asked for them

    def as_json(self) -> dict[str, int]:
        """Counts by name."""
        return asdict(self)


def migrate_artefacts(place: str | Path) -> Migrated:
    """Bring the artefacts below a storage path to today's layout; killed at any moment, it is simply called again.

    An artefact whose manifest lacks today's sizes and marks of its files, or that was copied, which changes them, is
    hashed and gets them: from then on it is found again without. Raises ArtefactError for a path that is no storage,
    LockedError while a run writes one of the artefacts.
    """
    store, counts = ArtefactStore.existing(place), Migrated()
    for home in sorted(store.homes()):
        key = f"leases/{home.parent.name}/{home.name}"
        with storage_errors(home), leased(store.control, key, f"the {home.parent.name} artefact"):
            match _migrate(store, home):
                case None:
                    counts.damaged += 1
                case True:
                    counts.moved += 1
                case False:
                    counts.current += 1
    return counts


def _migrate(store: ArtefactStore, home: Path) -> bool | None:
    """Move an artefact of format 1 into an attempt; False where it is of today's, None where it is damaged."""
    try:
        manifest = read_manifest(store.storage, home, anew=True)
        files = manifest["files"]
    except (ValueError, KeyError, TypeError):
        return None
    if "attempt" in manifest:
        return _remark(store, home, manifest)
    attempt = home / MIGRATED
    shutil.rmtree(attempt, ignore_errors=True)  # of an earlier call that was killed
    if file_hashes(home) != files:
        return None
    for name in files:
        (attempt / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(home / name, attempt / name)
    attempt.mkdir(exist_ok=True)  # for one without files
    today = {"format": FORMAT, "attempt": MIGRATED, "marks": marks_of(store.storage, attempt)}
    write_json(home / MANIFEST, manifest | today)
    _remove_originals(home)
    return True


def _remark(store: ArtefactStore, home: Path, manifest: dict[str, Any]) -> bool | None:
    """Note the marks that sound files have now; False, or None where a file is damaged."""
    if not store.storage.is_remote:
        _remove_originals(home)
    found = finished_at(store.storage, home)
    marks = marks_of(store.storage, found.path)
    if marks == manifest.get("marks"):
        return False
    if next(damaged_files(store.storage, found, thorough=False), None) is not None:
        return None
    store.storage.files.write(store.storage.name(home / MANIFEST), encoded(manifest | {"marks": marks}))
    return False


def _remove_originals(home: Path) -> None:
    """Remove what lay beside the manifest before it named an attempt."""
    for path in home.iterdir():
        if path.name in (MANIFEST, SCRATCH) or path.name.startswith(ATTEMPT):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
