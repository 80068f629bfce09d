"""`kcm verify` and `kcm gc`: the upkeep of a storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kcm.config import load_config
from kcm.errors import ConfigError
from pipelines.config import RunConfig
from pipelines.store.artefact import ArtefactStore
from pipelines.store.objects import normalised
from pipelines.store.upkeep import collect_garbage, find_garbage
from pipelines.store.upkeep import verify as verify_store


def storage_of(named: str) -> str | Path:
    """The storage that a command's argument names: a storage path, or the file of a run's configuration."""
    if Path(named).is_file():
        return load_config(RunConfig, Path(named)).storage_path
    try:
        return normalised(named)
    except ValueError as error:
        raise ConfigError(str(error), where=named) from None


def verify(named: str) -> dict[str, Any]:
    """Hash every file of every artefact: how many artefacts there are, and the damaged files."""
    num_artefacts, damaged = verify_store(ArtefactStore.existing(storage_of(named)))
    return {"artefacts": num_artefacts, "damaged": damaged}


def collect(named: str, *, delete: bool) -> dict[str, Any]:
    """What no run, champion or challenger refers to; with `delete` it is removed."""
    store = ArtefactStore.existing(storage_of(named))
    found = collect_garbage(store) if delete else find_garbage(store)
    return {
        "deleted": delete,
        "garbage": [f"{home.parent.name}/{home.name}" for home in found.homes],
        "overtaken_attempts": len(found.attempts),
        "bytes": found.size,
        "kept": found.kept,
        "interrupted": found.interrupted,
    }
