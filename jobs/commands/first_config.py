"""The work of `kcm init`: inspect tables, and write the configuration of a first run for them."""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from kcm.certification.ledger import look_delta, question_delta
from kcm.certification.sample_size import outlook
from kcm.config import parse_config
from kcm.encoders.precomputed import vector_columns
from kcm.errors import ConfigError, DataError
from kcm.inputs.location import stem_of
from kcm.inputs.tables import broken_notes, file_notes, missing_column
from kcm.redact import redacted
from kcm.tasks.preparation.build import write_sequence
from kcm.tasks.readers.files import TableSourceConfig, find_tables, ignored_note, tables_by_task
from kcm.tasks.readers.guess import GuessedColumns, given_texts, guess_columns, number_columns
from kcm.tasks.scenarios import TasksConfig, natural_scenario
from kcm.tasks.sequence import read_description, read_summary
from pipelines.config import RunConfig
from pipelines.stages.overview import overview

NONE = "none"  # the column of an option, if there is no such column
_SAMPLE_ROWS = 100_000
_MILDEST = 0.1  # largest epsilon worth a run
_FEWEST = 3  # fewest rows of a label: fewer cannot be in train, certify and test
_MAX_LEFT_OUT, _USUAL_BAD = 0.2, 0.01  # shares of rows; the second is the default of tasks.max_bad_rows
_FEW_COLUMNS = 32  # more are rather an embedding, whose columns have one unit (docs/results.md)
_TEXTS: tuple[dict[str, Any], ...] = (
    {"model": "sentence-transformers/all-MiniLM-L6-v2"},
    {"model": "sentence-transformers/all-mpnet-base-v2", "batch_size": 32},
)
_PICTURES: tuple[dict[str, Any], ...] = (
    {"kind": "image", "model": "facebook/dinov2-small", "side": 112},
    {"kind": "image", "model": "facebook/dinov2-base", "side": 224},
)
_HEAD = "# Written by `kcm init {}`. `kcm config` explains every key, docs/large_models.md the section `large`.\n"


def initialise(
    tables: Sequence[str], options: Mapping[str, str | None], scenario: str | None, output: Path | None, overwrite: bool
) -> dict[str, Any]:
    """Write a YAML file for tables; returns its path and the lines that describe the rows.

    `options` holds columns by role, None for those to guess. Raises DataError for tables that no run can use,
    ConfigError if the file exists and is not to be replaced.
    """
    source, where = source_of(tables, one_table=options["task"] is not None), " ".join(map(redacted, tables))
    place = re.sub(r"^hf://(datasets/)?([^/]+/[^/@]+).*", r"\2", tables[0]).partition("?")[0].rstrip("/")
    stem = [*(Path(stem_of(part)).name for part in place.split("/") if not re.search(r"[*?\[]", part))][-1:]
    name = re.sub(r"[^\w.-]", "_", "".join(stem)).lstrip("._-") or "run"
    file = output or Path(f"{name}.yaml")
    if file.exists() and not overwrite:
        hint = "Replace it with --overwrite, or name another file with --output"
        raise ConfigError("the file exists already", where=str(file), hint=hint)
    frame, lines = _preview(parse_config(TasksConfig, {"source": source}, where="kcm init").source, tables)
    columns = _columns(frame, options, where)
    lines += _column_lines(frame, columns)
    values = {"name": name, **_sections(source, columns, frame)}
    num_rows, more = _checked(values, columns, scenario)
    file.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)
    file.write_text(_HEAD.format(where) + text, encoding="utf-8")
    described = {"rows": num_rows, "columns": vars(columns), "overview": lines + more}
    return {"config": str(file), "next": f"kcm run {shlex.quote(str(file))}"} | described


def source_of(tables: Sequence[str], *, one_table: bool = False) -> dict[str, Any]:
    """The source section for files, folders and patterns, or for a data set of the hub. ConfigError for any other URL.

    Several files are a task each, unless they are one table.
    """
    schemes = {scheme for scheme, mark, _ in (table.partition("://") for table in tables) if mark}
    if schemes == {"hf"} and len(tables) == 1:  # hf://owner/name/subset@revision, hf://datasets/…
        path, _, revision = tables[0].removeprefix("hf://").removeprefix("datasets/").strip("/").partition("@")
        owner, name, subset, *_ = [*path.split("/"), "", ""]
        values = {"kind": "hub", "id": f"{owner}/{name}".strip("/"), "subset": subset, "revision": revision}
        return {key: value for key, value in values.items() if value}
    if unknown := schemes - {"s3", "gs", "gcs", "file"}:
        hint = "Use local paths, s3:// or gs:// for files, one hf:// for a data set"
        raise ConfigError(f"cannot read from {min(unknown)}://", where=redacted(tables[0]), hint=hint)
    by_task = {} if one_table else tables_by_task(tables)
    return {"kind": "files", "path": by_task or (tables[0] if len(tables) == 1 else list(tables))}


def _preview(source: Any, tables: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """The first usable rows of the tables, and lines on their files."""
    assert isinstance(source, TableSourceConfig)  # like all sources of `source_of`
    frames, broken, num_rows = [], list[int](), 0
    for chunk in source.chunks(Path("assets")):
        frames.append(chunk.table.take(np.delete(np.arange(chunk.num_rows), list(chunk.faults))).to_pandas())
        broken += [num_rows + 1 + row for row in chunk.broken]
        num_rows += chunk.num_rows
        if num_rows >= _SAMPLE_ROWS:
            break
    if not num_rows:
        raise DataError("the file holds no rows", where=tables[0], hint="Give a file with a header and rows below it")
    notes = []
    if source.kind == "files" and len(tables) == 1:
        found = find_tables(tables[0])
        notes = [*ignored_note(tables[0]), *(file_notes(found[0].location) if len(found) == 1 else ())]
    return pd.concat(frames, ignore_index=True), [*notes, *broken_notes(broken)]


def _columns(frame: pd.DataFrame, options: Mapping[str, str | None], where: str) -> GuessedColumns:
    """The column of each role. Raises DataError if labels or inputs are missing."""
    names = [str(name) for name in frame.columns]
    known = {role: column for role, column in options.items() if column}
    for role, column in known.items():
        if column not in (NONE, *names):
            raise missing_column(column, f"--{role}", names, where)
    columns = guess_columns(frame, {role: None if column == NONE else column for role, column in known.items()})
    some = ", ".join(names[:20])
    if columns.label is None:
        hint = f"Name it by --label ({some}). If there is none: kcm label {where} --llm MODEL --labels A,B"
        raise DataError("no column looks like labels", where=where, hint=hint)
    if columns.text is columns.image is None:
        columns = replace(columns, vector=number_columns(frame, vars(columns).values()))
        if not columns.vector:
            raise DataError("no column looks like texts or numbers", where=where, hint=f"Give --text, one of {some}")
    return columns


def _column_lines(frame: pd.DataFrame, columns: GuessedColumns) -> list[str]:
    """A line for each use of columns, and one for columns without a use."""
    uses = {role: [name] for role, name in vars(columns).items() if isinstance(name, str)}
    uses["numbers"] = list(columns.vector)
    used = {name for names in uses.values() for name in names}
    uses["not used"] = [name for name in map(str, frame.columns) if name not in used]
    shown = {use: ", ".join(map(repr, names[:8])) + (", …" if len(names) > 8 else "") for use, names in uses.items()}
    lines = [f"  {use:8}  {names}" for use, names in shown.items() if names]
    return ["columns:", *lines, "choose others by --text, --label, --task and --large"]


def _sections(source: dict[str, Any], columns: GuessedColumns, frame: pd.DataFrame) -> dict[str, Any]:
    """The sections of the run's configuration."""
    roles = ("text", "image", "label", "id", "group", "task", "split")
    tasks: dict[str, Any] = {
        "source": source | {f"{role}_column": name for role in roles if (name := getattr(columns, role))}
    }
    tasks["source"].setdefault("text_column", None)
    numbers = [{"kind": "precomputed", "columns": list(columns.vector)} for _ in range(2)]
    small, large = _TEXTS if columns.text else _PICTURES if columns.image else numbers
    sections: dict[str, Any] = {"tasks": tasks, "encoder": small, "large": {"adapter": "classifier", "encoder": large}}
    if columns.large:
        if not Path(str(source.get("path"))).is_file():
            hint = "Write the rows to one CSV or Parquet file with a column of tasks, or leave --large out"
            raise ConfigError(f"the answers in {columns.large!r} must be in one local file", where="--large", hint=hint)
        answers = {"path": source["path"], "id_column": columns.id, "label_column": columns.large}
        sections["large"] = {"adapter": "recorded", **answers}
    if 0 < len(columns.vector) <= _FEW_COLUMNS and frame[columns.vector[0]].map(np.isscalar).all():
        sections["network"] = {"scaling": "first_task"}  # a few columns of numbers have units of their own
    counts = given_texts(frame[columns.label]).value_counts()
    common = counts[counts >= _FEWEST]
    few_are_rare = 0 < counts.sum() - common.sum() <= _MAX_LEFT_OUT * len(frame)
    if few_are_rare and len(common) > 1 and columns.split is None:
        tasks["source"]["labels"] = sorted(common.index)
    if counts.sum() < (1 - _MAX_LEFT_OUT) * len(frame):
        tasks["unlabelled"] = "keep"
    # The gate that does better on the choosing rows is deployed; people can read both.
    return sections | {"tune": {"gates": ["confidence", "signals"]}, "certificate": {"epsilon": 0.02, "delta": 0.1}}


def _checked(values: dict[str, Any], columns: GuessedColumns, scenario: str | None) -> tuple[int, list[str]]:
    """The number of rows, and lines on them, as a run builds them; sets scenario, epsilon and bad rows."""
    tasks = values["tasks"]
    has_tasks = columns.task is not None or isinstance(tasks["source"].get("path"), dict)
    tasks["scenario"] = scenario or ("domain_incremental" if has_tasks else "class_incremental")
    tasks |= {"max_bad_rows": f"{_MAX_LEFT_OUT:.0%}"} | ({} if has_tasks else {"num_tasks": 1})
    config = parse_config(RunConfig, values, where="kcm init")
    source = config.tasks.source.build(config.assets_path, vector_columns(config.encoder))
    with tempfile.TemporaryDirectory() as folder:
        write_sequence(config.tasks, Path(folder), source, config.seed, reads=config.encoder.reads | config.large.reads)
        summary, description = read_summary(Path(folder)), read_description(Path(folder))
    if has_tasks and scenario is None:
        tasks["scenario"] = natural_scenario({task["name"]: task["label_names"] for task in description["tasks"]})
    if isinstance(tasks["source"].get("path"), dict):
        tasks["grows"] = True  # tables that came one after another: more will come
    if summary.num_bad <= _USUAL_BAD * (summary.num_rows + summary.num_bad):
        del tasks["max_bad_rows"]
    grows = bool(tasks.get("grows"))
    spend = (look_delta if grows else question_delta)(config.certificate.delta, 1)
    reach = outlook(summary.certify_units, config.certificate, config.tune.scopes, spend)
    if not reach.possible and reach.epsilon is not None and reach.epsilon <= _MILDEST:
        values["certificate"]["epsilon"] = round(reach.epsilon, 3)
    config = parse_config(RunConfig, values, where="kcm init")
    certificate, scopes, fractions = config.certificate, config.tune.scopes, config.tasks.fractions
    servable = not config.large.is_recorded
    lines = list(overview(summary, certificate, scopes, fractions, grows=grows, servable=servable))
    if has_tasks:
        lines.append(f"{len(summary.rows)} tasks, {tasks['scenario']}: {', '.join(summary.rows)}")
    if columns.vector and not columns.large:
        lines.append("warning: the large model is a linear one on the same numbers; name yours in the section `large`")
    if "labels" in tasks["source"]:
        lines.append(f"labels with fewer than {_FEWEST} rows are left out: see tasks.source.labels")
    if "unlabelled" in tasks:
        lines.append("rows without a label join the train rows with the large model's answer, if this helps")
    return summary.num_rows, lines
