"""Taking along what an earlier version wrote: nothing that was computed or paid for is computed or paid for again."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from kcm.errors import ArtefactError
from pipelines.store.artefact import (
    ATTEMPT,
    FORMAT,
    MANIFEST,
    SCRATCH,
    ArtefactStore,
    file_hashes,
    storage_errors,
    write_json,
)
from pipelines.store.lease import leased

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


def migrate_artefacts(root: Path) -> Migrated:
    """Bring the artefacts below a storage path to today's layout; killed at any moment, it is simply called again.

    Raises ArtefactError for a path that is no storage, LockedError while a run writes one of the artefacts.
    """
    if not (root / "artefacts").is_dir():
        raise ArtefactError("no artefacts here", where=str(root), mend="Give the storage_path of a run")
    store, counts = ArtefactStore(root), Migrated()
    for path in sorted((root / "artefacts").glob(f"*/*/{MANIFEST}")):
        home = path.parent
        key = f"leases/{home.parent.name}/{home.name}"
        with storage_errors(home), leased(store.control, key, f"the {home.parent.name} artefact"):
            match _migrate(home):
                case None:
                    counts.damaged += 1
                case True:
                    counts.moved += 1
                case False:
                    counts.current += 1
    return counts


def _migrate(home: Path) -> bool | None:
    """Move an artefact of format 1 into an attempt; False where it is of today's, None where it is damaged."""
    try:
        manifest = json.loads((home / MANIFEST).read_text(encoding="utf-8"))
        files = manifest["files"]
    except (ValueError, KeyError, TypeError):
        return None
    if "attempt" in manifest:
        _remove_originals(home)
        return False
    attempt = home / MIGRATED
    shutil.rmtree(attempt, ignore_errors=True)  # of an earlier call that was killed
    if file_hashes(home) != files:
        return None
    for name in files:
        (attempt / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(home / name, attempt / name)
    attempt.mkdir(exist_ok=True)  # for one without files
    write_json(home / MANIFEST, manifest | {"format": FORMAT, "attempt": MIGRATED})
    _remove_originals(home)
    return True


def _remove_originals(home: Path) -> None:
    """Remove what lay beside the manifest before it named an attempt."""
    for path in home.iterdir():
        if path.name in (MANIFEST, SCRATCH) or path.name.startswith(ATTEMPT):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
