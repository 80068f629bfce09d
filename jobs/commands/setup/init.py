"""`kcm init`: look at a table, and write the configuration of a first run that works with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from kcm.errors import ConfigError, DataError
from kcm.inputs.tables import missing_column, read_frame
from kcm.tasks.readers.guess import Columns, cost_column, guess_columns

KINDS = (".csv", ".tsv", ".parquet")
ASKED = {
    "text": "Column with the text",
    "label": "Column with the label",
    "large": "Column with the large model's answers",
}
NONE = "none"  # the answer where there is no such column


def initialise(
    table: Path,
    output: Path | None,
    given: dict[str, str | None],
    ask: Callable[[str, str], str] | None = None,
) -> dict[str, Any]:
    """Write a YAML file for `table`, and give its path and the lines that a run would say of the rows.

    `given` are columns by kind, text, label and large, that are known; `ask` is put the question and the guess for each
    of the others where there is a person. Raises DataError for a table that cannot be used, ConfigError for a file that
    is there already.
    """
    file = output or Path(f"{table.stem}.yaml")
    if file.exists():
        raise ConfigError("the file is there already", where=str(file), hint="Name another by --output, or delete it")
    frame = read_frame(table, KINDS)
    if frame.empty:
        raise DataError("the file holds no rows", where=str(table), hint="Give one with a header and rows below it")
    columns = _columns(frame, tuple(map(str, frame.columns)), given, ask, str(table))
    from jobs.commands.setup.first_config import first_config  # imports a run's whole configuration: seconds

    content, summary, lines = first_config(table, file, columns, len(frame))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write the file: {error.strerror}", where=str(file)) from error
    return {"config": str(file), "rows": summary.num_rows, "columns": vars(columns), "overview": lines}


def _columns(
    frame: pd.DataFrame,
    names: tuple[str, ...],
    given: dict[str, str | None],
    ask: Callable[[str, str], str] | None,
    where: str,
) -> Columns:
    chosen = {kind: column for kind, column in given.items() if column}
    for kind, column in chosen.items():
        _require(column, f"--{kind}", names, where)
    known = {kind: column for kind, column in chosen.items() if column != NONE}
    found = guess_columns(frame, text=known.get("text"), label=known.get("label"))
    for kind, question in ASKED.items():
        if kind in chosen:
            found = replace(found, **{kind: known.get(kind)})
        elif ask is not None:
            answer = ask(question, getattr(found, kind) or NONE)
            _require(answer, kind, names, where)
            found = replace(found, **{kind: None if answer == NONE else answer})
    found = replace(found, cost=cost_column(frame, found.large))
    if found.label is None:
        raise DataError("no column looks like labels", where=where, hint=f"Give --label, one of {', '.join(names)}")
    if found.text is None and found.image is None:
        raise DataError("no column looks like texts", where=where, hint=f"Give --text, one of {', '.join(names)}")
    if frame[found.label].nunique() < 2:
        hint = f"Add rows with another, or give --label, one of {', '.join(names)}"
        raise DataError(f"the column {found.label!r} has one label alone", where=where, hint=hint)
    if found.large and not found.id:
        raise DataError(
            f"the answers in {found.large!r} belong to rows without an id",
            where=where,
            hint="Add a column `id` that is unique, or give --large none",
        )
    return found


def _require(column: str, field: str, names: tuple[str, ...], where: str) -> None:
    if column != NONE and column not in names:
        raise missing_column(column, field, list(names), where)
