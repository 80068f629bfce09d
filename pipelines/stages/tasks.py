"""Stage `tasks`: rows become a task sequence with disjoint splits.

All nodes write rows. Rows are not read again if the files of the source are the same: under everything that decides a
sequence (configuration, and the stamp of every shard), the storage keeps the digest of the resulting rows. A stamp
changes whenever the content may have changed, so a file that was only touched is read again and has the same digest.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
from pydantic import Field, InstanceOf
from rich.markup import escape

from kcm.cascade.search import TuneConfig
from kcm.certification.certificate import CertificateConfig
from kcm.certification.ledger import Ledger
from kcm.config import Config
from kcm.encoders import EncoderConfig
from kcm.encoders.precomputed import vector_columns
from kcm.errors import ArtefactError
from kcm.large import LargeConfig
from kcm.learners import LearnerConfig
from kcm.tasks import TasksConfig
from kcm.tasks.preparation.build import Workers, in_process, write_sequence
from kcm.tasks.sequence import BAD_ROWS, DESCRIPTION, UNITS
from kcm.tasks.shards import SequenceFolder
from kcm.tasks.sources import Source
from pipelines.batch.mapping import map_items
from pipelines.context import Attempt, Context
from pipelines.stages.overview import later_look, overview
from pipelines.stages.parent import inherit
from pipelines.stages.stage import Plan, Stage
from pipelines.store.artefact import Artefact
from pipelines.store.sequence import Names, SequenceArtefact
from pipelines.store.storage import Storage, at_once

MANY_ROWS = 200_000  # from this number on, a cluster is worth the seconds of its start


class SequencePlan(Plan):
    """A task sequence; its identity is the content of the rows, not the name of their file.

    `written` is the folder with the rows; None if the artefact exists already and nothing was read.
    """

    content: str
    written: Path | None = Field(default=None, exclude=True)
    parent: InstanceOf[SequenceArtefact] | None = Field(default=None, exclude=True)

    def dependencies(self) -> tuple[Artefact, ...]:
        """The sequence that it continues."""
        return (self.parent,) if self.parent else ()

    def write(self, attempt: Attempt) -> None:
        """The sequence in its own folder format."""
        if self.written is None:
            raise ArtefactError("the rows were removed a moment ago", where="tasks", hint="Start again")
        storage = attempt.context.store.storage
        names = storage.names(self.written)
        here = (BAD_ROWS, UNITS, DESCRIPTION)  # written by the driver alone, and not uploaded yet
        if self.parent:
            inherit(attempt, self.parent, without=here)
        attempt.take({name: self.written / name for name in names if name.endswith(".parquet") and name not in here})
        for name in here:
            shutil.copyfile(self.written / name, attempt.folder / name)


class Tasks(Stage):
    """The task sequence.

    Bad rows are listed by id and reason in the run's folder before they can stop the run.
    """

    stage, version, writes = "tasks", 4, SequenceArtefact

    tasks: TasksConfig
    encoder: EncoderConfig
    large: LargeConfig
    learner: LearnerConfig
    seed: int
    certificate: CertificateConfig
    tune: TuneConfig
    certifies: bool = True

    @classmethod
    def of(cls, run: Config, **more: Any) -> Self:
        """The stage with its part of a run's configuration."""
        certifies = run.first_threshold is None  # type: ignore[attr-defined]
        return super().of(run, certifies=certifies, **more)

    def build(self, done: Mapping[str, Artefact], context: Context) -> Artefact:
        """The artefact. Its rows are written first, since their digest names it; the same files are read only once."""
        try:
            return super().build(done, context)
        finally:
            context.store.storage.drop([_written(context)])

    def plan(self, context: Context) -> SequencePlan:
        """The rows by their digest; written first if no run has read these files.

        So faults of the data and its labels stop the run before hours of encoding.
        """
        if self.tasks.source.needs_cluster:
            context.connect()
        source = self.tasks.source.build(context.assets_path, vector_columns(self.encoder))
        control, key = context.store.control, source_key(source, self._decides())
        known = control.get(key) if key else None
        sequence = self.parent and self.parent.sequence
        rows = SequencePlan(content=known.value.decode(), parent=sequence) if known else None
        if rows and (artefact := context.store.find(self.recipe(rows))):
            shutil.copyfile(artefact.file(BAD_ROWS), context.run_folder / BAD_ROWS)
            names = artefact.as_a(SequenceArtefact).names
        else:
            rows = self._write(source, context)
            if key and key == source_key(source, self._decides()):  # it has not changed meanwhile
                control.create(key, rows.content.encode())
            assert rows.written is not None
            names = Names.read(rows.written)
        self.learner.build(self.seed).check(len(names.labels))
        return rows

    def _decides(self) -> dict[str, Any]:
        """Everything that decides the rows of a sequence, except the source's settings."""
        return {
            "version": self.version,
            "units": "group, else content",  # rows of equal content were units of their own before
            "tasks": self.tasks.model_dump(mode="json", exclude={"grows"}),
            "seed": self.seed,
            "vectors": vector_columns(self.encoder),
            "parent": self.parent and self.parent.sequence.fingerprint,
            "reads": sorted(self.encoder.reads | self.large.reads),
        }

    def _write(self, source: Source, context: Context) -> SequencePlan:
        folder, started = _written(context), time.perf_counter()
        storage = context.store.storage
        storage.drop([folder])  # of a run that was killed
        sequence = self.parent and self.parent.sequence
        digest = write_sequence(
            self.tasks,
            StoredFolder(folder, storage),
            source,
            self.seed,
            reads=self.encoder.reads | self.large.reads,
            bad_rows_file=context.run_folder / BAD_ROWS,
            workers=workers_of(context),
            earlier=sequence and sequence.as_earlier(),
        )
        context.seconds[self.stage] = time.perf_counter() - started
        return SequencePlan(content=digest, written=folder, parent=sequence)

    def publish(self, artefact: SequenceArtefact, context: Context) -> None:
        """Report the rows and what could be certified with them, before anything is paid."""
        lines = overview(
            artefact.summary,
            self.certificate if self.certifies else None,
            self.tune.scopes,
            self.tasks.fractions,
            grows=self.tasks.grows,
            servable=not self.large.is_recorded,
        )
        for line in (*lines, *self._later_look(artefact, context)):
            style = "yellow" if line.startswith("warning") else "dim"
            context.reporter.say(f"[{style}]{escape(line)}[/{style}]")

    def _later_look(self, artefact: SequenceArtefact, context: Context) -> Iterator[str]:
        """A line if other runs have looked at these rows."""
        ledger = Ledger(context.store.ledger)
        if not self.certifies or not ledger.looks():  # without looks, the units need not be read
            return
        look = ledger.preview(artefact.ledger_units, delta=self.certificate.delta, digest="", grows=self.tasks.grows)
        if look.number > 1:
            yield later_look(look, artefact.summary, self.certificate, self.tune.scopes)


def _written(context: Context) -> Path:
    """Where the sequence of a run is written; a run has one driver at a time."""
    return context.run_folder / "sequence"


@dataclass(frozen=True)
class StoredFolder(SequenceFolder):
    """A folder of a storage. In a bucket, a complete file is uploaded immediately and stays on no node."""

    storage: Storage

    @contextmanager
    def new(self, name: str) -> Iterator[Path]:
        """A file to be written, which is part of the storage afterwards."""
        with super().new(name) as draft:
            yield draft
        if self.storage.is_remote:
            self.storage.hand_over(self.path / name)

    def open(self, name: str) -> pa.NativeFile:
        """A file that some node wrote; from a bucket, only the ranges that are read are fetched."""
        if not self.storage.is_remote:
            return super().open(name)
        return pa.PythonFile(self.storage.files.open(self.storage.name(self.path / name)), mode="r")

    def remove(self, names: Iterable[str]) -> None:
        """Remove files that are needed no more."""
        self.storage.drop(self.path / name for name in names)


def workers_of(context: Context) -> Workers:
    """Who reads and writes the rows of a run: all nodes, or this process for few rows."""

    def by_rows(function: Callable[[Any], Any], items: Sequence[Any], num_rows: int) -> Iterable[Any]:
        if num_rows < MANY_ROWS or len(items) < 2:
            return in_process(function, items, num_rows)
        context.connect()
        return map_items(function, items, few=2)

    return by_rows


def source_key(source: Source, decides: Mapping[str, Any]) -> str | None:
    """The key of a source with its present content; None if changes of the content cannot be detected.

    `decides` is everything else that decides the sequence, as plain values.
    """
    stamps = at_once(lambda shard: shard.stamp(), source.shards)
    if not stamps or None in stamps:
        return None
    content = [source.name, source.labels, source.out_of_scope_label, stamps, dict(decides)]
    return f"sources/{hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:32]}"
