"""`kcm init`: look at a table, and write the configuration of a first run that works with it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer


def init(
    table: Annotated[
        str,
        typer.Argument(
            metavar="TABLE",
            help="Your rows: a CSV, TSV, JSON, JSON lines, Parquet, Arrow or Excel file, a folder or pattern of them; "
            "or hf://OWNER/NAME.",
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
) -> dict[str, Any]:
    """Look at TABLE, and write the configuration of a first run that works with it."""

    def ask(question: str, guess: str) -> str:
        return typer.prompt(question, default=guess, err=True)

    if "://" not in table:
        from kcm.tasks.readers.files import find_tables

        find_tables(table)  # a file that is not there is reported before torch is imported
    from jobs.commands.first_look import initialise

    asks = ask if sys.stdin.isatty() and not yes else None
    result = initialise(table, output, {"text": text, "label": label, "large": large}, asks)
    for line in result["overview"]:
        typer.echo(line, err=True)
    typer.echo(result["config"])
    return result
