"""`kcm init`: inspect a table, and write the configuration of a first run for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.options import is_asked


def init(
    table: Annotated[
        str,
        typer.Argument(
            metavar="TABLE",
            help="Your rows: CSV, TSV, JSON, JSON lines, Parquet or Excel, as a file, a folder or a "
            "pattern; or hf://OWNER/NAME.",
        ),
    ],
    text: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column with the text. Default: guessed.")] = None,
    label: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column with the label. Default: guessed.")
    ] = None,
    large: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column with the answers of your large model. Default: guessed."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The configuration file. Default: TABLE's name with .yaml.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Accept all guesses; without a terminal nothing is asked.")
    ] = False,
) -> dict[str, Any]:
    """Inspect TABLE, and write the configuration of a first run."""

    def ask(question: str, guess: str) -> str:
        return typer.prompt(question, default=guess, err=True)

    if "://" not in table:
        from kcm.tasks.readers.files import find_tables

        find_tables(table)  # a missing file is reported before torch is imported
    from jobs.commands.inspect_table import initialise

    asks = ask if is_asked() and not yes else None
    result = initialise(table, output, {"text": text, "label": label, "large": large}, asks)
    for line in result["overview"]:
        typer.echo(line, err=True)
    typer.echo(result["config"])
    typer.echo(f"next: {result['next']}", err=True)
    return result
