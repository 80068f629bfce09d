"""A look at a table, and the configuration of a first run that works with it: the work of `kcm init`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from jobs.commands.first_config import ASSETS, column_table, findings, first_config
from kcm.config import parse_config
from kcm.errors import ConfigError, DataError
from kcm.inputs.cell_text import chat_texts, has_chats
from kcm.inputs.chunks import TEXTS
from kcm.inputs.location import stem_of
from kcm.inputs.tables import broken_notes, file_notes, missing_column
from kcm.inputs.textfile import UNKNOWN_FORMAT
from kcm.logs.read import log_format
from kcm.redact import redacted
from kcm.tasks.config import TasksConfig
from kcm.tasks.readers.files import TableSourceConfig, find_tables, ignored_note
from kcm.tasks.readers.guess import REPLY, GuessedColumns, cost_column, given_texts, guess_columns, number_columns
from kcm.tasks.sources import SourceConfig

QUESTIONS = {
    "text": "Column with the text",
    "label": "Column with the label",
    "large": "Column with the large model's answers",
}
_WITHOUT_LABELS = "Give --label, one of {some}; without labels, run kcm label {table} --llm MODEL --labels A,B,C"
NONE = "none"  # the answer where there is no such column
_SAMPLE_ROWS, _SAMPLE_BYTES, _MAX_COLUMNS = 100_000, 256 << 20, 2_000


def initialise(
    table: str, output: Path | None, given: dict[str, str | None], ask: Callable[[str, str], str] | None = None
) -> dict[str, Any]:
    """Write a YAML file for `table`, and give its path and the lines that describe the rows.

    `given` are columns by kind, text, label and large, that are known; `ask` is put the question and the guess for each
    of the others where there is a person. Raises DataError for a table that cannot be used, ConfigError for a file that
    is there already.
    """
    source = source_of(table)
    name = _name_of(source)
    file = output or Path(f"{name}.yaml")
    if file.exists():
        raise ConfigError("the file is there already", where=str(file), hint="Name another by --output, or delete it")
    lines = _file_lines(source, table)
    frame, is_sample, broken = _preview(parse_config(TasksConfig, {"source": source}, where="kcm init").source, table)
    columns, reasons = _columns(frame, given, ask, table)
    lines += [*broken_notes(broken), *column_table(frame, columns, reasons)]
    config = first_config(table, name, source, file, columns, frame)
    lines += findings(frame, columns, is_sample=is_sample)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(config.content, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write the file: {error.strerror}", where=str(file)) from error
    overview = [*lines, *config.lines]
    return {"config": str(file), "rows": config.num_rows, "columns": vars(columns), "overview": overview}


def source_of(table: str) -> dict[str, Any]:
    """The source section for what a user named: a file, folder or pattern, or a data set of the hub.

    Raises ConfigError for any other URL.
    """
    scheme, _, rest = table.partition("://")
    if not rest or scheme in ("s3", "gs", "gcs", "file"):
        return {"kind": "files", "path": table}
    if scheme == "hf":  # hf://owner/name/subset@revision; clients of the hub write hf://datasets/…
        path, _, revision = rest.removeprefix("datasets/").strip("/").partition("@")
        owner, name, subset, *_ = [*path.split("/"), "", ""]
        values = {"kind": "hub", "id": f"{owner}/{name}".strip("/"), "subset": subset, "revision": revision}
        return {key: value for key, value in values.items() if value}
    raise ConfigError(
        f"nothing is read from {scheme}://",
        where=redacted(table),
        hint="Files are read from local paths, s3:// and gs://, data sets from hf://",
    )


def _name_of(source: dict[str, Any]) -> str:
    """A name for the run: the file, folder or data set without suffixes."""
    named = str(source.get("path") or source["id"]).partition("?")[0].rstrip("/")
    parts = [part for part in named.split("/") if not re.search(r"[*?\[]", part)]
    stem = Path(stem_of(parts[-1] if parts else "")).name
    return re.sub(r"[^\w.-]", "_", stem).lstrip("._-") or "run"


def _file_lines(source: dict[str, Any], table: str) -> list[str]:
    """Lines on the files: which are ignored, and how a single one is written, which the source is told too.

    Raises DataError for a log of LLM calls: its inputs and answers are deeper than columns.
    """
    if source["kind"] != "files":
        return []
    lines, tables = list(ignored_note(source["path"])), find_tables(source["path"])
    if len(tables) != 1:
        return lines
    location = tables[0].location
    if kind := log_format(location):
        hint = f"Run kcm savings {table}: it says how much of the bill a small model could have saved"
        raise DataError(f"this is a log of LLM calls ({kind}), not a table of rows", where=table, hint=hint)
    if location.suffix in TEXTS:
        found = UNKNOWN_FORMAT.found_in(location)
        source["encoding"] = found.encoding
        if location.suffix in (".csv", ".tsv"):
            source["delimiter"] = found.delimiter
    return [*lines, *file_notes(location)]


def _preview(source: SourceConfig, where: str) -> tuple[pd.DataFrame, bool, list[int]]:
    """The first usable rows of a table, whether there may be more, and the numbers of rows with broken cells.

    A column of chats is two: what the user said last, and under its name and `REPLY` what the assistant replied.
    """
    assert isinstance(source, TableSourceConfig)  # as all are that `source_of` names
    frames, broken = [], list[int]()
    num_rows = num_bytes = 0
    is_sample = False
    for chunk in source.chunks(ASSETS):
        if is_sample := num_rows >= _SAMPLE_ROWS or num_bytes >= _SAMPLE_BYTES:
            break
        if len(chunk.names) > _MAX_COLUMNS:
            raise DataError(
                f"the table has {len(chunk.names):,} columns, and `kcm init` looks at {_MAX_COLUMNS:,} at most",
                where=where,
                hint="Write the configuration by hand: encoder `precomputed` reads such vectors; see docs/own_data.md",
            )
        usable = np.delete(np.arange(chunk.num_rows), list(chunk.faults))
        frames.append(_with_chats(chunk.table.take(usable)).to_pandas())
        broken += [num_rows + 1 + row for row in chunk.broken]
        num_rows += chunk.num_rows
        num_bytes += chunk.table.nbytes
    if not num_rows:
        raise DataError("the file holds no rows", where=where, hint="Give one with a header and rows below it")
    return pd.concat(frames, ignore_index=True), is_sample, broken


def _with_chats(table: pa.Table) -> pa.Table:
    """The table with two columns of text for each one of chats."""
    for name in table.schema.names:
        column = table[name]
        if has_chats(column):
            table = table.append_column(f"{name}{REPLY}", chat_texts(column, "assistant"))
            table = table.set_column(table.schema.names.index(name), name, chat_texts(column, "user"))
    return table


def _columns(
    frame: pd.DataFrame, given: dict[str, str | None], ask: Callable[[str, str], str] | None, where: str
) -> tuple[GuessedColumns, dict[str, str]]:
    """The columns of each kind, and why further ones are no part of the vector of a table of numbers."""
    names = tuple(map(str, frame.columns))
    some = ", ".join(names[:20])
    chosen = {kind: column for kind, column in given.items() if column}
    for kind, column in chosen.items():
        _require(column, f"--{kind}", names, where)
        if kind == "label" and f"{column}{REPLY}" in names:  # of chats
            chosen[kind] = f"{column}{REPLY}"
    known = {kind: column for kind, column in chosen.items() if column != NONE}
    columns = guess_columns(frame, text=known.get("text"), label=known.get("label"))
    said: dict[str, Any] = {}
    for kind, question in QUESTIONS.items():
        if kind in chosen:
            said[kind] = known.get(kind)
        elif ask is not None:
            answer = ask(question, getattr(columns, kind) or NONE)
            _require(answer, kind, names, where)
            said[kind] = None if answer == NONE else answer
    columns = replace(columns, **said)
    columns = replace(columns, cost=cost_column(frame, columns.large))
    reasons: dict[str, str] = {}
    if columns.label is None:
        raise DataError("no column looks like labels", where=where, hint=_WITHOUT_LABELS.format(table=where, some=some))
    if columns.text is None and columns.image is None:
        vector, reasons = number_columns(frame, vars(columns).values())
        columns = replace(columns, vector=vector)
        if not columns.vector:
            raise DataError("no column looks like texts", where=where, hint=f"Give --text, one of {some}")
        if columns.large is None:
            hint = "Give --large, the column with its answers; other models are named in a configuration"
            raise DataError("rows of numbers need a large model's answers", where=where, hint=hint)
    labelled = given_texts(frame[columns.label])
    num_labels = labelled.nunique()
    other = f"give --label, one of {some}"
    if num_labels < 2:
        raise DataError(f"the column {columns.label!r} has one label alone", where=where, hint=f"Add rows, or {other}")
    if num_labels > max(len(labelled) / 2, 10):
        raise DataError(
            f"the column {columns.label!r} has {num_labels:,} values in {len(labelled):,} rows, too many for labels",
            where=where,
            hint=other.capitalize(),
        )
    return columns, reasons


def _require(column: str, field: str, names: tuple[str, ...], where: str) -> None:
    if column != NONE and column not in names:
        raise missing_column(column, field, list(names), where)
