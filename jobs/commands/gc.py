"""`kcm gc`: remove artefacts without references."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kcm.config import load_config
from kcm.errors import ConfigError
from pipelines.store.artefact import ArtefactStore
from pipelines.store.files import normalised
from pipelines.store.garbage import collect_garbage, find_garbage

StorageSource = Annotated[
    str,
    typer.Argument(metavar="CONFIG|STORAGE", help="A run's YAML file, or the storage_path of runs: a folder or a URI."),
]


def gc(
    storage: StorageSource,
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove the artefacts; without it they are only listed.")
    ] = False,
) -> dict[str, Any]:
    """List or remove artefacts that nothing refers to.

    Runs, champions and challengers refer to artefacts.
    """
    store = ArtefactStore.existing(storage_of(storage))
    garbage = collect_garbage(store) if delete else find_garbage(store)
    names = [f"{home.parent.name}/{home.name}" for home in garbage.homes]
    for name in names:
        typer.echo(name)
    typer.echo(
        f"{len(names)} artefacts and {len(garbage.attempts)} attempts, {garbage.size / 1e6:.1f} MB,"
        f" {'removed' if delete else 'can be removed by --delete'};"
        f" {garbage.kept} artefacts are referred to, {garbage.interrupted} interrupted ones are kept",
        err=True,
    )
    return {
        "deleted": delete,
        "garbage": names,
        "overtaken_attempts": len(garbage.attempts),
        "bytes": garbage.size,
        "kept": garbage.kept,
        "interrupted": garbage.interrupted,
    }


def storage_of(location: str) -> str | Path:
    """The storage of an argument: a storage path, or the file of a run's configuration."""
    if Path(location).is_file():
        from pipelines.config import RunConfig  # torch

        return load_config(RunConfig, Path(location)).storage_path
    try:
        return normalised(location)
    except ValueError as error:
        raise ConfigError(str(error), where=location) from None
