"""The work of `kcm init`: inspect a table, and write the configuration of a first run for it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jobs.commands.first_config import ASSETS, column_table, findings, first_config
from kcm.config import parse_config
from kcm.errors import ConfigError, DataError
from kcm.inputs.chunks import TEXTS
from kcm.inputs.location import stem_of
from kcm.inputs.tables import broken_notes, file_notes, missing_column
from kcm.inputs.textfile import UNKNOWN_FORMAT
from kcm.redact import redacted
from kcm.tasks.readers.files import TableSourceConfig, find_tables, ignored_note
from kcm.tasks.readers.guess import GuessedColumns, cost_column, given_texts, guess_columns, number_columns
from kcm.tasks.scenarios import TasksConfig
from kcm.tasks.sources import SourceConfig

QUESTIONS = {
    "text": "Column with the text",
    "label": "Column with the label",
    "large": "Column with the large model's answers",
}
_WITHOUT_LABELS = "Name it by --label ({some}). If there is none: kcm label {table} --llm MODEL --labels A,B"
NONE = "none"  # the answer if there is no such column
_SAMPLE_ROWS, _SAMPLE_BYTES, _MAX_COLUMNS = 100_000, 256 << 20, 2_000


def initialise(
    table: str, output: Path | None, column_options: dict[str, str | None], ask: Callable[[str, str], str] | None = None
) -> dict[str, Any]:
    """Write a YAML file for `table`; returns its path and the lines that describe the rows.

    `column_options` holds known columns by kind: text, label and large. For each other kind, `ask` gets the question
    and the guess, if a person is there. Raises DataError for an unusable table, ConfigError if the file exists already.
    """
    source = source_of(table)
    name = _name_of(source)
    file = output or Path(f"{name}.yaml")
    if file.exists():
        raise ConfigError(
            "the file exists already", where=str(file), hint="Name another file with --output, or delete it"
        )
    lines = _file_lines(source)
    frame, is_sample, bad_lines = _preview(
        parse_config(TasksConfig, {"source": source}, where="kcm init").source, table
    )
    columns, reasons = _columns(frame, column_options, ask, table)
    lines += [*broken_notes(bad_lines), *column_table(frame, columns, reasons)]
    config = first_config(table, name, source, file, columns, frame)
    lines += findings(frame, columns, is_sample=is_sample)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(config.content, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write the file: {error.strerror}", where=str(file)) from error
    overview = [*lines, *config.lines]
    result = {"config": str(file), "rows": config.num_rows, "columns": vars(columns), "overview": overview}
    return result | {"next": config.next}


def source_of(table: str) -> dict[str, Any]:
    """The source section for a file, folder, pattern, or a data set of the hub.

    Raises ConfigError for any other URL.
    """
    scheme, _, location = table.partition("://")
    if not location or scheme in ("s3", "gs", "gcs", "file"):
        return {"kind": "files", "path": table}
    if scheme == "hf":  # hf://owner/name/subset@revision; clients of the hub write hf://datasets/…
        path, _, revision = location.removeprefix("datasets/").strip("/").partition("@")
        owner, name, subset, *_ = [*path.split("/"), "", ""]
        values = {"kind": "hub", "id": f"{owner}/{name}".strip("/"), "subset": subset, "revision": revision}
        return {key: value for key, value in values.items() if value}
    raise ConfigError(
        f"cannot read from {scheme}://",
        where=redacted(table),
        hint="Use a local path, s3:// or gs:// for files, hf:// for data sets",
    )


def _name_of(source: dict[str, Any]) -> str:
    """A name for the run: the file, folder or data set without suffixes."""
    place = str(source.get("path") or source["id"]).partition("?")[0].rstrip("/")
    parts = [part for part in place.split("/") if not re.search(r"[*?\[]", part)]
    stem = Path(stem_of(parts[-1] if parts else "")).name
    return re.sub(r"[^\w.-]", "_", stem).lstrip("._-") or "run"


def _file_lines(source: dict[str, Any]) -> list[str]:
    """Lines on ignored files and on a single file's format; the source gets the format."""
    if source["kind"] != "files":
        return []
    lines, tables = list(ignored_note(source["path"])), find_tables(source["path"])
    if len(tables) != 1:
        return lines
    location = tables[0].location
    if location.suffix in TEXTS:
        format_lines = UNKNOWN_FORMAT.found_in(location)
        source["encoding"] = format_lines.encoding
        if location.suffix in (".csv", ".tsv"):
            source["delimiter"] = format_lines.delimiter
    return [*lines, *file_notes(location)]


def _preview(source: SourceConfig, where: str) -> tuple[pd.DataFrame, bool, list[int]]:
    """The first usable rows of a table, whether there may be more, and the numbers of rows with broken cells."""
    assert isinstance(source, TableSourceConfig)  # like all sources of `source_of`
    frames, bad_rows = [], list[int]()
    num_rows = num_bytes = 0
    is_sample = False
    for chunk in source.chunks(ASSETS):
        if is_sample := num_rows >= _SAMPLE_ROWS or num_bytes >= _SAMPLE_BYTES:
            break
        if len(chunk.names) > _MAX_COLUMNS:
            raise DataError(
                f"the table has {len(chunk.names):,} columns, `kcm init` reads at most {_MAX_COLUMNS:,}",
                where=where,
                hint="Write the configuration by hand: encoder `precomputed` reads such vectors; see docs/own_data.md",
            )
        usable = np.delete(np.arange(chunk.num_rows), list(chunk.faults))
        frames.append(chunk.table.take(usable).to_pandas())
        bad_rows += [num_rows + 1 + row for row in chunk.broken]
        num_rows += chunk.num_rows
        num_bytes += chunk.table.nbytes
    if not num_rows:
        raise DataError("the file holds no rows", where=where, hint="Give a file with a header and rows below it")
    return pd.concat(frames, ignore_index=True), is_sample, bad_rows


def _columns(
    frame: pd.DataFrame, column_options: dict[str, str | None], ask: Callable[[str, str], str] | None, where: str
) -> tuple[GuessedColumns, dict[str, str]]:
    """The columns of each kind, and for a table of numbers why other columns are not part of the vector."""
    names = tuple(map(str, frame.columns))
    column_list = ", ".join(names[:20])
    columns_by_kind = {kind: column for kind, column in column_options.items() if column}
    for kind, column in columns_by_kind.items():
        _require(column, f"--{kind}", names, where)
    named_columns = {kind: column for kind, column in columns_by_kind.items() if column != NONE}
    columns = guess_columns(frame, text=named_columns.get("text"), label=named_columns.get("label"))
    answers: dict[str, Any] = {}
    for kind, question in QUESTIONS.items():
        if kind in columns_by_kind:
            answers[kind] = named_columns.get(kind)
        elif ask is not None:
            answer = ask(question, getattr(columns, kind) or NONE)
            _require(answer, kind, names, where)
            answers[kind] = None if answer == NONE else answer
    columns = replace(columns, **answers)
    columns = replace(columns, cost=cost_column(frame, columns.large))
    reasons: dict[str, str] = {}
    if columns.label is None:
        raise DataError(
            "no column looks like labels", where=where, hint=_WITHOUT_LABELS.format(table=where, some=column_list)
        )
    if columns.text is None and columns.image is None:
        vector, reasons = number_columns(frame, vars(columns).values())
        columns = replace(columns, vector=vector)
        if not columns.vector:
            raise DataError("no column looks like texts", where=where, hint=f"Give --text, one of {column_list}")
        if columns.large is None:
            hint = "Give --large, the column with its answers; name other models in a configuration"
            raise DataError("rows of numbers need a large model's answers", where=where, hint=hint)
    has_label = given_texts(frame[columns.label])
    num_labels = has_label.nunique()
    advice = f"give --label, one of {column_list}"
    if num_labels < 2:
        raise DataError(f"the column {columns.label!r} has only one label", where=where, hint=f"Add rows, or {advice}")
    if num_labels > max(len(has_label) / 2, 10):
        raise DataError(
            f"the column {columns.label!r} has {num_labels:,} values in {len(has_label):,} rows, too many for labels",
            where=where,
            hint=advice.capitalize(),
        )
    return columns, reasons


def _require(column: str, field: str, names: tuple[str, ...], where: str) -> None:
    if column != NONE and column not in names:
        raise missing_column(column, field, list(names), where)
