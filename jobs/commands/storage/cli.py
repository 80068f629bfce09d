"""`kcm migrate`, `kcm verify` and `kcm gc`."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.exit import reported
from jobs.options import Debug, JsonFile, announce
from kcm.errors import KcmError

StorageSource = Annotated[
    str,
    typer.Argument(metavar="CONFIG|STORAGE", help="A run's YAML file, or the storage_path of runs: a folder or a URI."),
]


def migrate(storage: StorageSource, json: JsonFile = None, debug: Debug = False) -> None:
    """Bring what an earlier version wrote to today's layout: artefacts, paid answers and the log."""
    with reported(json, debug) as result:
        announce(f"reading {storage}")
        from jobs.commands.storage.migration import migrate as migrate_storage
        from jobs.commands.storage.upkeep import storage_of

        result |= migrate_storage(storage_of(storage))
        typer.echo(", ".join(f"{name}: {value}" for name, value in result.items()))


def verify(storage: StorageSource, json: JsonFile = None, debug: Debug = False) -> None:
    """Read and hash every file of every artefact, name the damaged ones, and exit with 2 where there are any."""
    with reported(json, debug) as result:
        announce(f"reading {storage}")
        from jobs.commands.storage.upkeep import verify as verify_storage

        result |= verify_storage(storage)
        for name in result["damaged"]:
            typer.echo(name)
        typer.echo(f"{result['artefacts']} artefacts, {len(result['damaged'])} damaged files", err=True)
        if result["damaged"]:
            raise KcmError(
                f"damaged: {', '.join(result['damaged'][:5])}", where=storage, hint="Run again: they are made anew"
            )


def gc(
    storage: StorageSource,
    delete: Annotated[bool, typer.Option("--delete", help="Remove them; without it they are only listed.")] = False,
    json: JsonFile = None,
    debug: Debug = False,
) -> None:
    """List the artefacts that no run, champion or challenger refers to, or remove them."""
    with reported(json, debug) as result:
        announce(f"reading {storage}")
        from jobs.commands.storage.upkeep import collect

        result |= collect(storage, delete=delete)
        for name in result["garbage"]:
            typer.echo(name)
        typer.echo(
            f"{len(result['garbage'])} artefacts and {result['overtaken_attempts']} attempts,"
            f" {result['bytes'] / 1e6:.1f} MB, {'removed' if delete else 'can be removed by --delete'};"
            f" {result['kept']} artefacts are referred to, {result['interrupted']} interrupted ones are kept",
            err=True,
        )
