"""Stage `tasks`: rows become a task sequence with disjoint splits."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq
from pydantic import Field
from rich.markup import escape

from kcm.cascade.search import TuneConfig
from kcm.certify.certificate import CertificateConfig
from kcm.encoders import EncoderConfig
from kcm.errors import DataError
from kcm.large import LargeConfig
from kcm.learners import LearnerConfig
from kcm.tasks import TasksConfig
from kcm.tasks.build import write_sequence
from kcm.tasks.shards import task_shards
from pipelines.context import Attempt, Context
from pipelines.data.passes import workers_of
from pipelines.stages.overview import overview
from pipelines.stages.stage import Plan, Stage
from pipelines.store.artefact import Artefact
from pipelines.store.sequence import Names, SequenceArtefact


class Rows(Plan):
    """A task sequence; its identity is the content of the rows, not the name of their file."""

    content: str
    written: Path = Field(exclude=True)

    def write(self, attempt: Attempt) -> None:
        """The sequence in its own folder format."""
        for file in self.written.iterdir():
            shutil.move(file, attempt.folder / file.name)


class Tasks(Stage):
    """The task sequence.

    Bad rows are listed by id and reason in the run's folder before they can stop the run.
    """

    stage, version, writes = "tasks", 3, SequenceArtefact

    tasks: TasksConfig
    encoder: EncoderConfig
    large: LargeConfig
    learner: LearnerConfig
    seed: int
    certificate: CertificateConfig
    tune: TuneConfig

    def build(self, done: Mapping[str, Artefact], context: Context) -> Artefact:
        """The artefact. Its rows are written before it has a name, which is made of them."""
        try:
            return super().build(done, context)
        finally:
            shutil.rmtree(_written(context), ignore_errors=True)

    def plan(self, context: Context) -> Rows:
        """Write the sequence, so that faults of the data and its labels stop the run before hours of encoding."""
        folder = _written(context)
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
        digest = write_sequence(
            self.tasks,
            folder,
            self.tasks.source.build(context.assets_path, self.encoder.vector_columns),
            self.seed,
            reads=self.encoder.reads | self.large.reads,
            bad_rows_file=context.run_folder / "bad_rows.csv",
            workers=workers_of(context.store.storage),
        )
        self.learner.build(self.seed).check(len(Names.read(folder).labels))
        return Rows(content=digest, written=folder)

    def publish(self, artefact: SequenceArtefact, context: Context) -> None:
        """Say what the rows are and what could be certified with them, before anything is paid.

        Raises DataError for rows that a table of recorded answers lacks.
        """
        lines = overview(
            artefact.summary,
            self.certificate,
            self.tune.scopes,
            self.tasks.fractions,
            servable=self.large.servable,
        )
        for line in lines:
            style = "yellow" if line.startswith("warning") else "dim"
            context.reporter.say(f"[{style}]{escape(line)}[/{style}]")
        if self.large.servable:
            return
        shards = [each for number in range(len(artefact.names.tasks)) for each in task_shards(artefact.folder, number)]
        ids = [row for shard in shards for row in pq.read_table(shard, columns=["id"])["id"].to_pylist()]
        if lacking := self.large.unanswered(ids):
            raise DataError(
                f"{len(lacking):,} of {len(ids):,} rows have no recorded answer, the first is {lacking[0]!r}",
                where=self.large.location,
                mend="Add their answers to the table, or take the rows out",
            )


def _written(context: Context) -> Path:
    """Where the sequence of a run is written; a run has one driver at a time."""
    return context.run_folder / "sequence"
