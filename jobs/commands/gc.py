"""`kcm gc`: remove artefacts without references."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from jobs.options import Run
from pipelines.store.artefact import ArtefactStore
from pipelines.store.garbage import collect_garbage, find_garbage


def gc(
    config: Run,
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove the artefacts; without it they are only listed.")
    ] = False,
) -> dict[str, Any]:
    """List or remove artefacts that nothing refers to.

    CONFIG names the storage. Runs, champions and challengers refer to artefacts.
    """
    store = ArtefactStore.existing(config.storage_path)
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
