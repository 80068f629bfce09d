"""Upkeep of a storage: removing what nothing refers to any more.

Kept are: every artefact whose fingerprint appears in a run's result or in a record of the loop (all champions, because
a rollback may return to any; all challengers, by their digest); the artefacts that their bundles name; the bundles that
these continue; and the inputs of all of these. Interrupted work is kept too, because it can resume.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kcm.assets.manifest import sha256_of
from kcm.errors import LockedError
from pipelines.store.artefact import (
    ARTEFACTS,
    CONTROL,
    MANIFEST,
    Artefact,
    ArtefactStore,
)
from pipelines.store.lease import holder_of, leased

CLEANING = "leases/gc"  # held while files are removed; no run starts meanwhile
_BUNDLE, _LINEAGE = "bundle/bundle.json", "bundle/lineage.json"  # the first file names the bundle's digest
_NAME = re.compile(r"\b[0-9a-f]{16}(?:[0-9a-f]{48})?\b")  # name of an artefact or a bundle


@dataclass
class Garbage:
    """What nothing refers to: `homes` of artefacts, superseded `attempts`, and their size."""

    homes: list[Path] = field(default_factory=list)
    attempts: list[Path] = field(default_factory=list)
    size: int = 0
    kept: int = 0  # artefacts that are referred to
    interrupted: int = 0  # homes of unfinished work, which are kept


def find_garbage(store: ArtefactStore) -> Garbage:
    """What could be removed from a storage."""
    sizes: dict[Path, dict[str, int]] = {}
    for stat in store.storage.files.list(ARTEFACTS):
        _, *home_parts, name = Path(stat.name).parts[:4]
        if len(home_parts) < 2:  # no file of an artefact: a file browser's, for example
            continue
        sizes_by_file = sizes.setdefault(store.root.joinpath(ARTEFACTS, *home_parts), {})
        sizes_by_file[name] = sizes_by_file.get(name, 0) + stat.size
    artefacts, garbage = {artefact.home: artefact for artefact in store.finished("")}, Garbage()
    referred = _referred(store, artefacts)
    for home, sizes_by_file in sorted(sizes.items()):
        if home not in artefacts:
            garbage.interrupted += 1
        elif home not in referred:
            garbage.homes.append(home)
            garbage.size += sum(sizes_by_file.values())
        else:
            garbage.kept += 1
            overtaken = sorted(sizes_by_file.keys() - {MANIFEST, artefacts[home].path.name})
            garbage.attempts += [home / name for name in overtaken]
            garbage.size += sum(sizes_by_file[name] for name in overtaken)
    return garbage


def collect_garbage(store: ArtefactStore) -> Garbage:
    """Remove what nothing refers to, also from this node's folder for the storage.

    LockedError while anything is being written: it may be about to refer to an artefact.
    """
    with leased(store.control, CLEANING, "the storage"):
        if holder := holder_of(store.control, (key for key in store.control.keys("leases") if key != CLEANING)):
            raise LockedError(f"the storage is in use by {holder[1]}", where=holder[0], hint="Wait for it to end")
        garbage = find_garbage(store)
        for home in garbage.homes:
            store.storage.files.delete([store.storage.name(home / MANIFEST)])  # no half of it is taken for finished
            store.storage.drop([home])
        store.storage.drop(garbage.attempts)
        if store.storage.is_remote:
            homes = set(store.homes())
            for home in (store.root / ARTEFACTS).glob("*/*"):
                if home not in homes:
                    shutil.rmtree(home, ignore_errors=True)
    return garbage


def _referred(store: ArtefactStore, artefacts: Mapping[Path, Artefact]) -> set[Path]:
    """The homes of all referenced artefacts, and of everything from which they were made."""
    by_name = {home.name: home for home in artefacts}
    bundles = {home: artefact for home, artefact in artefacts.items() if _BUNDLE in artefact.manifest["files"]}
    by_name |= {sha256_of(bundle.file(_BUNDLE)): home for home, bundle in bundles.items()}
    reached_homes: set[Path] = set()
    pending = [by_name[name] for name in _named(store) if name in by_name]
    while pending:
        if (home := pending.pop()) in reached_homes:
            continue
        reached_homes.add(home)
        names = [*artefacts[home].manifest["inputs"].values()]
        if home in bundles:
            names += _NAME.findall(bundles[home].file(_LINEAGE).read_text(encoding="utf-8"))
        pending += [by_name[name] for name in names if name in by_name]
    return reached_homes


def _named(store: ArtefactStore) -> set[str]:
    """All names of artefacts and bundles in results of runs and in records of the loop."""
    files = store.storage.files
    names = [stat.name for stat in files.list("runs") if stat.name.endswith(".json")]
    names += [stat.name for stat in files.list(f"{CONTROL}/loop")]
    return {name for file_name in names for name in _NAME.findall(files.read(file_name).decode(errors="replace"))}
