"""Stage `tasks`: rows become a task sequence with disjoint splits."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pyarrow as pa
from pydantic import Field, InstanceOf
from rich.markup import escape

from kcm.cascade.search import TuneConfig
from kcm.certify.certificate import CertificateConfig
from kcm.encoders import EncoderConfig
from kcm.inputs.content import image_digest
from kcm.large import LargeConfig
from kcm.learners import LearnerConfig
from kcm.tasks import TasksConfig, TaskSequence, build_sequence
from kcm.tasks.summary import summarize
from pipelines.context import Attempt, Context
from pipelines.stages.overview import overview
from pipelines.stages.stage import Plan, Stage
from pipelines.store.sequence import SequenceArtefact


class Rows(Plan):
    """A task sequence; its identity is the content of the rows, not the name of their file."""

    content: str
    sequence: InstanceOf[TaskSequence] = Field(exclude=True)

    def write(self, attempt: Attempt) -> None:
        """The sequence in its own folder format."""
        self.sequence.save(attempt.folder)


class Tasks(Stage):
    """The task sequence.

    Bad rows are listed by id and reason in the run's folder before they can stop the run.
    """

    stage, version, writes = "tasks", 2, SequenceArtefact

    tasks: TasksConfig
    encoder: EncoderConfig
    large: LargeConfig
    learner: LearnerConfig
    seed: int
    certificate: CertificateConfig
    tune: TuneConfig

    def plan(self, context: Context) -> Rows:
        """Build the sequence, so that faults of the data and its labels stop the run before hours of encoding."""
        sequence = build_sequence(
            self.tasks,
            context.assets_path,
            self.seed,
            reads=self.encoder.reads | self.large.reads,
            bad_rows_file=context.run_folder / "bad_rows.csv",
            source=self.tasks.source.build(context.assets_path, self.encoder.vector_columns),
        )
        self.learner.build(self.seed).check(len(sequence.label_names))
        return Rows(content=_digest(sequence), sequence=sequence)

    def publish(self, artefact: SequenceArtefact, context: Context) -> None:
        """Say what the rows are and what could be certified with them, before anything is paid."""
        summary = summarize(artefact.load())
        for line in overview(summary, self.certificate, self.tune.scopes, self.tasks.fractions):
            style = "yellow" if line.startswith("warning") else "dim"
            context.reporter.say(f"[{style}]{escape(line)}[/{style}]")


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
