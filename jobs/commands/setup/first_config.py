"""The configuration of a first run on a table: settings for its size, and an epsilon that its rows can certify."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml

from kcm.certify.outlook import outlook
from kcm.config import parse_config
from kcm.tasks.preparation.build import write_sequence
from kcm.tasks.preparation.checks import SplitError
from kcm.tasks.readers.guess import Columns
from kcm.tasks.summary import Summary, read_summary
from pipelines.config import RunConfig
from pipelines.stages.overview import overview

_MILDEST = 0.1  # epsilon beyond which a certificate says too little to be worth a run
_FEW_ROWS = 5000
_HEAD = """\
# Written by `kcm init {table}`. Every key is explained in docs/configuration.md.
#
{commands}
#
# {large}
"""
_RECORDED = """The large model is the one whose answers the table holds. It cannot answer inputs that are not there:
# before `kcm serve`, name a model that can in the section `large`; see docs/large_models.md."""
_CLASSIFIER = """The large model is {encoder} with a linear head that is fitted to the train rows.
# Put your own in its place: see docs/large_models.md."""
_HOPELESS = (
    f"warning: these rows are too few: no epsilon up to {_MILDEST:g} can be certified with them, and a run would put"
    " every input to the large model. Label more rows before you run it"
)
_TEXTS = (
    {"model": "sentence-transformers/all-MiniLM-L6-v2"},
    {"model": "sentence-transformers/all-mpnet-base-v2", "batch_size": 32},
)
_NETWORK_OF_PICTURES = "efficientnet-lite2"
_PICTURES = tuple({"kind": "image", "model": _NETWORK_OF_PICTURES, "side": side} for side in (96, 160))


def first_config(table: Path, file: Path, columns: Columns, num_rows: int) -> tuple[str, Summary, list[str]]:
    """The YAML of `file` for a table, what its rows are, and the lines that a run would say of them.

    Raises DataError for rows that no run can use.
    """
    values = _configuration(table, columns, num_rows)
    summary, lines = _checked(values)
    commands = [] if columns.text else [f"kcm assets {_NETWORK_OF_PICTURES}"]
    commands += [f"kcm run {file}"] if columns.large else [f"kcm run {file}", f"kcm serve {file}"]
    encoder = "mpnet" if columns.text else "the same network on larger pictures,"
    head = _HEAD.format(
        table=table,
        commands="\n".join(f"#   {command}" for command in commands),
        large=_RECORDED if columns.large else _CLASSIFIER.format(encoder=encoder),
    )
    return head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True), summary, lines


def _configuration(table: Path, columns: Columns, num_rows: int) -> dict[str, Any]:
    """What the run is to be; settings for few rows are those of the demo."""
    known = {"group_column": columns.group, "task_column": columns.task, "split_column": columns.split}
    source = {
        "kind": "files",
        "path": str(table),
        "text_column": columns.text,
        "image_column": columns.image,
        "label_column": columns.label,
        "id_column": columns.id,
    } | known
    tasks: dict[str, Any] = {
        "source": {name: value for name, value in source.items() if value is not None or name == "text_column"},
        "scenario": "domain_incremental" if columns.task else "class_incremental",
    }
    if columns.task is None:
        tasks["num_tasks"] = 1
    if num_rows < _FEW_ROWS and columns.split is None:  # a certificate needs rows
        tasks["fractions"] = {"train": 0.40, "validate": 0.15, "certify": 0.27, "test": 0.18}
    small, large = _TEXTS if columns.text else _PICTURES
    recorded = {"adapter": "recorded", "path": str(table), "id_column": columns.id, "label_column": columns.large}
    if columns.cost:
        recorded["currency_column"] = columns.cost
    values: dict[str, Any] = {
        "name": "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in table.stem).lstrip("._-")
        or "run",
        "tasks": tasks,
        "encoder": small,
        "large": recorded if columns.large else {"adapter": "classifier", "encoder": large},
    }
    gates = ["confidence", "signals"]  # the better one on validate is deployed, and either can be read whole
    return values | {"tune": {"gates": gates}, "certificate": {"epsilon": 0.02, "delta": 0.1}}


def _checked(values: dict[str, Any]) -> tuple[Summary, list[str]]:
    """The rows as the run will see them, and what it will say; epsilon is raised to what these rows can certify."""
    config = parse_config(RunConfig, values, where="kcm init")
    try:
        summary = _summary(config)
    except SplitError as error:
        if error.salt is None:
            raise
        values["tasks"]["salt"] = error.salt  # few rows need a lucky draw
        config = parse_config(RunConfig, values, where="kcm init")
        summary = _summary(config)
    found = outlook(summary.certify_units, config.certificate, config.tune.scopes)
    hopeless = not found.possible and (found.epsilon is None or found.epsilon > _MILDEST)
    if not found.possible and found.epsilon is not None and not hopeless:
        values["certificate"]["epsilon"] = round(found.epsilon, 3)
        config = parse_config(RunConfig, values, where="kcm init")
    lines = list(
        overview(
            summary, config.certificate, config.tune.scopes, config.tasks.fractions, servable=config.large.servable
        )
    )
    return summary, [*lines, _HOPELESS] if hopeless else lines


def _summary(config: RunConfig) -> Summary:
    """The rows, built as the run will build them."""
    source = config.tasks.source.build(config.assets_path)
    reads = config.encoder.reads | config.large.reads
    with tempfile.TemporaryDirectory() as folder:
        write_sequence(config.tasks, Path(folder), source, config.seed, reads=reads)
        return read_summary(Path(folder))
