"""The configuration of a first run on a table, with an epsilon that its rows can certify."""

from __future__ import annotations

import re
import shlex
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from kcm.certification.sample_size import outlook
from kcm.config import parse_config
from kcm.encoders.precomputed import vector_columns
from kcm.errors import ConfigError
from kcm.inputs.cell_text import written
from kcm.report.formats import plural
from kcm.tasks.preparation.build import write_sequence
from kcm.tasks.preparation.checks import SplitError
from kcm.tasks.readers.guess import GuessedColumns, given_texts, tells_label
from kcm.tasks.rows import BadRow, read_bad_rows
from kcm.tasks.sequence import BAD_ROWS, Summary, read_summary
from kcm.tasks.sources import Source
from pipelines.config import RunConfig
from pipelines.stages.overview import overview

ASSETS = Path("assets")
_MILDEST = 0.1  # largest epsilon worth a run
_NUM_SALTS = 32
_FEWEST = 3  # fewest rows of a label: fewer cannot be in train, certify and test
_MAX_RARE = _MAX_BAD = 0.2  # largest share of rows that may be left out
_OFF_LIST = re.compile(r"^label '.*' is not in the label list$", re.DOTALL)  # one line for all rare labels
_USUAL_BAD = 0.01  # the default of tasks.max_bad_rows
_HEAD = """\
# Written by `kcm init {table}`. `kcm config` explains every key.
#
{commands}
#
# {large}
"""
_RECORDED = """The large model is the one whose answers the table holds. It cannot answer inputs that are not there:
# before `kcm serve`, name a model that can in the section `large`; see docs/large_models.md."""
_CLASSIFIER = """The large model is {encoder} with a linear head fitted to the train rows.
# Replace it with your own: see docs/large_models.md."""
_HOPELESS = (
    f"warning: too few rows: they can certify no epsilon up to {_MILDEST:g}, so a run would escalate every input. "
    "Label more rows first"
)
_FEW_COLUMNS = 32  # more are rather an embedding, whose columns have one unit (docs/results.md)
_TEXTS = (
    {"model": "sentence-transformers/all-MiniLM-L6-v2"},
    {"model": "sentence-transformers/all-mpnet-base-v2", "batch_size": 32},
)
_PICTURES = (
    {"kind": "image", "model": "facebook/dinov2-small", "side": 112},
    {"kind": "image", "model": "facebook/dinov2-base", "side": 224},
)


class _InLines(list[str]):
    """A list of names that is written on shared lines."""


class _Dumper(yaml.SafeDumper):
    """Writes `_InLines` in brackets."""


_Dumper.add_representer(
    _InLines, lambda dumper, names: dumper.represent_sequence("tag:yaml.org,2002:seq", names, flow_style=True)
)


@dataclass(frozen=True)
class FirstConfig:
    """The YAML of a configuration, the rows that a run uses, the lines that describe them, and what to run next."""

    content: str
    num_rows: int
    lines: list[str]
    next: str


def first_config(
    table: str, name: str, source: dict[str, Any], file: Path, columns: GuessedColumns, frame: pd.DataFrame
) -> FirstConfig:
    """The configuration `file` of a run on `table`, whose first rows are `frame`.

    Raises DataError for rows that no run can use, ConfigError for recorded answers that are not in a file.
    """
    values = {"name": name} | _sections(source, columns)
    if _few_numbers(frame, columns):
        values["network"] = {"scaling": "first_task"}
    rare = _rare_labels(frame, columns)
    leaves_out = bool(rare) and sum(rare.values()) <= _MAX_RARE * len(frame)
    if leaves_out:
        values["tasks"]["source"]["labels"] = sorted({*given_texts(frame[columns.label])} - rare.keys())
    unlabelled = len(frame) - len(given_texts(frame[columns.label])) if columns.label in frame else 0
    if unlabelled > _MAX_BAD * len(frame):
        values["tasks"]["unlabelled"] = "keep"
    summary, lines = _checked(values)
    if "unlabelled" in values["tasks"]:
        lines.append(
            f"{unlabelled / len(frame):.0%} of the rows have no label: they join the train rows with the large "
            "model's answer as their label, if this helps on labelled rows"
        )
    lines += rare_lines(rare, _FEWEST, left_out=leaves_out)
    commands = [f"kcm run {shlex.quote(str(file))}"]
    following = ", then ".join([*(["label more rows"] if _HOPELESS in lines else []), *commands])
    if not columns.large:
        commands.append(f"kcm serve {shlex.quote(str(file))}")
    encoder = "mpnet" if columns.text else "a larger network on larger pictures,"
    head = _HEAD.format(
        table=table,
        commands="\n".join(f"#   {command}" for command in commands),
        large=_RECORDED if columns.large else _CLASSIFIER.format(encoder=encoder),
    )
    content = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return FirstConfig(head + content, summary.num_rows, lines, following)


def _sections(source: dict[str, Any], columns: GuessedColumns) -> dict[str, Any]:
    """The sections of the run's configuration."""
    sections = {
        "text_column": columns.text,
        "image_column": columns.image,
        "label_column": columns.label,
        "id_column": columns.id,
        "group_column": columns.group,
        "task_column": columns.task,
        "split_column": columns.split,
    }
    tasks: dict[str, Any] = {
        "source": source | {key: name for key, name in sections.items() if name is not None or key == "text_column"},
        "scenario": "domain_incremental" if columns.task else "class_incremental",
    }
    if columns.task is None:
        tasks["num_tasks"] = 1
    vector = {"kind": "precomputed", "columns": _InLines(columns.vector)}
    small, large = _TEXTS if columns.text else _PICTURES if columns.image else (vector, vector)
    return {
        "tasks": tasks,
        "encoder": small,
        "large": _recorded(source, columns) if columns.large else {"adapter": "classifier", "encoder": large},
        # The gate that does better on the choosing rows is deployed; people can read both.
        "tune": {"gates": ["confidence", "signals"]},
        "certificate": {"epsilon": 0.02, "delta": 0.1},
    }


def _few_numbers(frame: pd.DataFrame, columns: GuessedColumns) -> bool:
    """Whether the input is a few columns of numbers, which have units of their own, and no embedding."""
    is_list = any(isinstance(cell, list | np.ndarray) for name in columns.vector for cell in frame[name])
    return columns.text is columns.image is None and len(columns.vector) <= _FEW_COLUMNS and not is_list


def _recorded(source: dict[str, Any], columns: GuessedColumns) -> dict[str, Any]:
    if not Path(str(source.get("path"))).is_file():
        raise ConfigError(
            f"the answers in {columns.large!r} must be in a local file",
            where="--large",
            hint="Write the rows to one CSV or Parquet file, or give --large none",
        )
    large = {
        "adapter": "recorded",
        "path": source["path"],
        "id_column": columns.id,
        "label_column": columns.large,
        "currency_column": columns.cost,
    }
    return {key: value for key, value in large.items() if value is not None or key == "id_column"}


def _rare_labels(frame: pd.DataFrame, columns: GuessedColumns) -> dict[str, int]:
    """Labels with too few rows, and their counts; none if the table has its own splits."""
    if columns.split is not None or columns.label is None:
        return {}
    counts = given_texts(frame[columns.label]).value_counts()
    rare = {str(label): int(count) for label, count in counts.items() if count < _FEWEST}
    return rare if len(counts) - len(rare) >= 2 else {}


def _checked(values: dict[str, Any]) -> tuple[Summary, list[str]]:
    """The rows and their summary by a run; sets salt, bad rows and epsilon as these rows need."""
    tasks = values["tasks"]
    tasks["max_bad_rows"] = f"{_MAX_BAD:.0%}"
    config = parse_config(RunConfig, values, where="kcm init")
    source = config.tasks.source.build(config.assets_path, vector_columns(config.encoder))
    summary, bad_rows = _drawn(values, source)
    total = summary.num_rows + summary.num_bad
    del tasks["max_bad_rows"]
    if summary.num_bad > _USUAL_BAD * total:
        tasks["max_bad_rows"] = summary.num_bad
    config = parse_config(RunConfig, values, where="kcm init")
    certificate_outlook = outlook(summary.certify_units, config.certificate, config.tune.scopes)
    is_hopeless = not certificate_outlook.possible and (
        certificate_outlook.epsilon is None or certificate_outlook.epsilon > _MILDEST
    )
    if not certificate_outlook.possible and certificate_outlook.epsilon is not None and not is_hopeless:
        values["certificate"]["epsilon"] = round(certificate_outlook.epsilon, 3)
        config = parse_config(RunConfig, values, where="kcm init")
    lines = overview(
        summary, config.certificate, config.tune.scopes, config.tasks.fractions, servable=not config.large.is_recorded
    )
    bad_lines = bad_row_lines(bad_rows, total, tasks.get("max_bad_rows"))
    return summary, [*lines, *bad_lines, *([_HOPELESS] if is_hopeless else [])]


def _drawn(values: dict[str, Any], source: Source) -> tuple[Summary, list[BadRow]]:
    """The result of `_build`; if few rows need a lucky draw, with the first salt that gives all splits their rows."""
    for salt in (None, *range(1, _NUM_SALTS)):
        if salt is not None:
            values["tasks"]["salt"] = salt
        try:
            return _build(parse_config(RunConfig, values, where="kcm init"), source)
        except SplitError as error:
            failure = error
        if not failure.is_drawn:
            break
    raise failure


def _build(config: RunConfig, source: Source) -> tuple[Summary, list[BadRow]]:
    """The rows, built as the run will build them, and the bad rows."""
    reads = config.encoder.reads | config.large.reads
    with tempfile.TemporaryDirectory() as folder:
        write_sequence(config.tasks, Path(folder), source, config.seed, reads=reads)
        summary = read_summary(Path(folder))
        return summary, list(read_bad_rows(Path(folder) / BAD_ROWS)[: summary.num_bad])


_SHOWN = 3
_NAMES = 8  # most columns in a line


def column_table(frame: pd.DataFrame, columns: GuessedColumns, reasons: Mapping[str, str]) -> Iterator[str]:
    """A line for each use of columns, and a line for each reason why columns are not used.

    `reasons` say why columns are not part of a vector.
    """
    names_by_kind = {kind: [name] for kind, name in vars(columns).items() if isinstance(name, str)}
    names_by_kind |= {"numbers": list(columns.vector)} if columns.vector else {}
    used_names = {name for names in names_by_kind.values() for name in names}
    unused: dict[str, list[str]] = defaultdict(list)
    for name in map(str, frame.columns):
        if name not in used_names:
            reason = reasons.get(name) or f"the input is the {'text' if columns.text else 'picture'}"
            unused[reason].append(name)
    rows = [*names_by_kind.items(), *(("not used", names) for names in unused.values())]
    whys = [*("" for _ in names_by_kind), *(f": {reason}" for reason in unused)]
    yield "columns:"
    for (use, names), why in zip(rows, whys, strict=True):
        ellipsis = f", … ({len(names)} columns)" if len(names) > _NAMES else ""
        yield f"  {use:8}  {', '.join(map(repr, names[:_NAMES]))}{ellipsis}{why}"
    yield "choose others by --text, --label and --large"


def findings(frame: pd.DataFrame, columns: GuessedColumns, *, is_sample: bool) -> Iterator[str]:
    """Lines on repeated ids, texts with several labels, and numbers that reveal the label; a sample if `is_sample`."""
    among = f" among the first {len(frame):,} rows" if is_sample else ""
    if columns.id is None and "id" in frame and (num_repeated := int(frame["id"].duplicated().sum())):
        yield f"column 'id' repeats {plural(num_repeated, 'id')}{among}: row numbers name the rows instead"
    if columns.text and columns.label:
        texts = frame[columns.text].map(written)
        texts = texts[texts.fillna("").str.strip() != ""]
        labels = given_texts(frame[columns.label]).groupby(texts).nunique()
        if contradicted := int((labels > 1).sum()):
            yield f"warning: {plural(contradicted, 'text')} with several labels{among}: correct them in the table"
    if columns.vector and columns.label:
        labels = frame[columns.label].map(written)
        for name in columns.vector:
            if tells_label(frame[name], labels):
                yield (
                    f"warning: column {name!r} alone reveals every label{among}: delete it from encoder.columns if "
                    "it is unknown when an input arrives"
                )


def bad_row_lines(bad_rows: Sequence[BadRow], num_rows: int, limit: int | None) -> Iterator[str]:
    """Lines on rows that are left out, by reason."""
    reasons: dict[str, list[int]] = defaultdict(list)
    for row in bad_rows:
        reason = re.sub(r"^line \d+: ", "", row.reason)
        reasons[_OFF_LIST.sub("a label that is not in the label list", reason)].append(row.row)
    for reason, rows in sorted(reasons.items(), key=lambda pair: -len(pair[1])):
        numbers = ", ".join(map(str, rows[:_SHOWN])) + (", …" if len(rows) > _SHOWN else "")
        yield f"left out: {plural(len(rows), 'row')}, {reason} (row {numbers})"
    if limit is not None:
        yield f"tasks.max_bad_rows is set to {limit}: {len(bad_rows):,} of {num_rows:,} rows are bad"


def rare_lines(rare: Mapping[str, int], fewest: int, *, left_out: bool) -> Iterator[str]:
    """A line on labels with too few rows to be learned and tested."""
    if rare:
        names = ", ".join(f"{label!r} {count:,}" for label, count in list(rare.items())[:_SHOWN])
        ellipsis = ", …" if len(rare) > _SHOWN else ""
        action = "excluded; to use them, label more rows and add them to tasks.source.labels" if left_out else "kept"
        yield f"{plural(len(rare), 'label')} with fewer than {fewest} rows ({names}{ellipsis}): {action}"
