"""Stage `tasks`: rows become a task sequence with disjoint splits."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from kcm.inputs.content import image_digest
from kcm.tasks import TaskSequence, build_sequence
from pipelines.context import Context
from pipelines.progress import Bar
from pipelines.store.artefact import Artefact, Recipe

VERSION = 2


def tasks(context: Context) -> Artefact:
    """The task sequence in its own folder format.

    It is built before its fingerprint is known: what counts is the content of the rows, not the name of their file.
    Bad rows are listed by id and reason in the run's folder before they can stop the run.
    """
    config = context.config
    bad_rows_file = context.run_folder / "bad_rows.csv"
    reads = config.encoder.reads | config.large.reads
    sequence = build_sequence(config.tasks, config.assets_path, config.seed, reads=reads, bad_rows_file=bad_rows_file)

    def write(folder: Path, scratch: Path, bar: Bar) -> None:
        sequence.save(folder)

    return context.build(Recipe("tasks", VERSION, {"content": _digest(sequence)}), write)


def load_sequence(artefact: Artefact) -> TaskSequence:
    """The task sequence of a finished stage."""
    return TaskSequence.load(artefact.folder)


def _digest(sequence: TaskSequence) -> str:
    digest = hashlib.sha256(
        json.dumps([sequence.name, sequence.scenario, sequence.label_names, sequence.none_label]).encode()
    )
    for number, task in enumerate(sequence.tasks):
        digest.update(json.dumps([task.name, task.label_names, _plain(sequence.rows(number))]).encode())
    return digest.hexdigest()


def _plain(rows: pa.Table) -> list[dict[str, Any]]:
    """Rows as plain values: a picture by its digest, and not at all where there is none."""
    plain: list[dict[str, Any]] = rows.to_pylist()
    for row in plain:
        if image := row.pop("image"):
            row["image"] = image_digest(image)
    return plain
