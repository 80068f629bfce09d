"""A labelled table as a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kcm.errors import ArtefactError, ConfigError
from kcm.local_files import drafted

if TYPE_CHECKING:  # commands check the name of a file before they read a table
    import pandas as pd

KINDS = (".csv", ".tsv", ".parquet", ".jsonl")


def check_output(path: Path, table: Path | None) -> None:
    """Raise ConfigError for a file of another kind, a folder, and the local `table` itself, before anything is paid."""
    if path.suffix.lower() not in KINDS:
        raise ConfigError(
            f"cannot write {path.suffix or 'a file without a suffix'}", where=str(path), hint=f"Use {', '.join(KINDS)}"
        )
    if path.is_dir():
        raise ConfigError("the output is a folder", where=str(path), hint="Name a file by --output")
    if table is not None and path.resolve() == table.resolve():
        raise ConfigError("the output would replace the table", where=str(path), hint="Name another file by --output")


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """Write the table, whole or not at all. Raises ArtefactError if that is not possible."""
    kind = path.suffix.lower()
    from kcm.inputs.cell_text import guarded_frame

    try:
        with drafted(path) as draft:
            if kind in (".csv", ".tsv"):
                guarded_frame(frame).to_csv(draft, index=False, sep="\t" if kind == ".tsv" else ",")
            elif kind == ".parquet":
                frame.to_parquet(draft, index=False)
            else:
                frame.to_json(draft, orient="records", lines=True, force_ascii=False)
    except (OSError, TypeError, ValueError) as error:  # the two last: a cell or a column's name does not fit
        reason = getattr(error, "strerror", None) or error
        raise ArtefactError(f"cannot write the table: {reason}", where=str(path)) from None
