"""`kcm init`: inspect tables, and write the configuration of a first run for them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def _column(holds: str) -> Any:
    return typer.Option(metavar="COLUMN", help=f"Column with {holds}, or none. Default: guessed.")


def init(
    tables: Annotated[
        list[str],
        typer.Argument(
            metavar="TABLE...",
            help="Your rows: CSV, TSV, JSON, JSON lines, Parquet or Excel, as a file, a folder or a pattern; or "
            "hf://OWNER/NAME. Several files are a task each, in this order.",
        ),
    ],
    text: Annotated[str | None, _column("the text")] = None,
    label: Annotated[str | None, _column("the label")] = None,
    task: Annotated[str | None, _column("the task")] = None,
    large: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column with the answers of your large model, if there is one.")
    ] = None,
    scenario: Annotated[
        str | None,
        typer.Option(help="domain_incremental, class_incremental or task_incremental. Default: by the labels."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The configuration file. Default: TABLE's name with .yaml.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing configuration file.")] = False,
) -> dict[str, Any]:
    """Inspect TABLE, and write the configuration of a first run."""
    from kcm.tasks.readers.files import find_tables

    for table in tables:
        if "://" not in table:
            find_tables(table)  # a missing file is reported before torch is imported
    from jobs.commands.first_config import initialise

    columns = {"text": text, "label": label, "task": task, "large": large}
    result = initialise(tables, columns, scenario, output, overwrite)
    for line in result["overview"]:
        typer.echo(line, err=True)
    typer.echo(result["config"])
    typer.echo(f"next: {result['next']}", err=True)
    return result
