"""Stages `grow`, `features` and `outcomes` of an update: the champion's sequence with one more task, from the log.

What was there is taken over, not made again: the new task alone costs work, however long the sequence is.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from kcm.encoders import EncoderConfig
from kcm.errors import ConfigError, DataError
from kcm.large import LargeConfig
from kcm.learners import LearnerConfig
from kcm.parquet import read_table, write_table
from kcm.tasks.rowindex import INDEX
from kcm.tasks.sequence import DESCRIPTION, append_task
from kcm.tasks.shards import GROUP_ROWS
from pipelines.context import Attempt, Context
from pipelines.loop.certify.judged import window_features
from pipelines.loop.stages.selection import row_ids, task_of
from pipelines.loop.stages.window import WindowArtefact
from pipelines.stages.features import Encoding, Features
from pipelines.stages.outcomes import Outcomes
from pipelines.stages.register import BundleArtefact
from pipelines.stages.stage import Plan, Stage
from pipelines.store.artefact import Artefact
from pipelines.store.features import SECONDS, FeaturesArtefact, features_table, write_rows
from pipelines.store.outcomes import IDENTITY, Answers, OutcomesArtefact, write_identity
from pipelines.store.sequence import Names, SequenceArtefact
from pipelines.store.sharded import ShardedArtefact
from pipelines.store.storage import Kept


class Growth(Plan):
    """The champion's sequence, which the window's task is appended to."""

    parent: Any = Field(exclude=True)  # a SequenceArtefact

    def dependencies(self, window: WindowArtefact) -> tuple[Artefact, ...]:
        """The window and the sequence."""
        return window, self.parent

    def write(self, attempt: Attempt, window: WindowArtefact) -> None:
        """The sequence with one more task. DataError for a window without rows to measure or to choose on."""
        known: Names = self.parent.names
        names = Names((*known.tasks, window.task), (*known.labels, *window.new_labels), known.none_label)
        task = task_of(window.table, window.task, names)
        for split in ("train", "validate", "test"):
            if not len(task.splits[split]):
                raise DataError(
                    f"the large model answered no decision of a {split} unit",
                    where=f"the window of task {window.task!r}",
                    hint="Wait for more traffic, or raise serve.audit.share",
                )
        inherit(attempt, self.parent, window.forgotten_rows, without=DESCRIPTION)
        append_task(self.parent.file(DESCRIPTION).parent, attempt.folder, task, names.labels)


class Grow(Stage):
    """The champion's task sequence, and the window as one more task.

    `parent` is the champion's bundle; so it is in all stages of an update.
    """

    stage, version, reads, writes, unit = "grow", 1, ("window",), SequenceArtefact, "tasks"

    learner: LearnerConfig
    seed: int
    parent: Any  # a BundleArtefact

    def plan(self, context: Context, window: WindowArtefact) -> Growth:
        """The sequence of the champion; ConfigError for a memory without room for the labels that come."""
        sequence = _features_of(self.parent).sequence
        self.learner.build(self.seed).check(len(sequence.names.labels) + len(window.new_labels))
        return Growth(parent=sequence)


class GrownEncoding(Plan):
    """The champion's features, and those of the window's task: as the log has them, else by the same encoder."""

    encoder: EncoderConfig
    identity: str
    device: str
    parent: Any = Field(exclude=True)  # a FeaturesArtefact

    def dependencies(self, window: WindowArtefact, sequence: SequenceArtefact) -> tuple[Artefact, ...]:
        """The grown sequence, which is made of the window, and the champion's features."""
        return sequence, self.parent

    def write(self, attempt: Attempt, window: WindowArtefact, sequence: SequenceArtefact) -> None:
        """One Parquet file per task, of which the last alone is made."""
        inherit(attempt, self.parent, window.forgotten_rows)
        number = len(sequence.names.tasks) - 1
        rows = sequence.task(number)
        decisions = _decisions(window, rows)
        encoder = self.encoder.in_runtime(self.parent.runtime)
        features_ND = window_features(decisions, encoder, attempt.context, scratch=attempt.scratch, bar=attempt.bar)
        if features_ND.shape[1] != self.parent.dim:
            raise DataError(
                f"stored features have {features_ND.shape[1]} numbers, those of the champion {self.parent.dim}",
                where="the log",
                hint="Begin the window after the change of encoder",
            )
        # What encoding took is not logged: a row costs what it costs elsewhere.
        seconds = float(np.median(self.parent.task(0)[SECONDS].to_numpy()))
        write_rows(attempt.folder, number, features_table(rows, features_ND, np.full(len(rows), seconds)))


class GrowFeatures(Stage):
    """The features of the grown sequence."""

    stage, version, reads, writes = Features.stage, Features.version, ("window", "sequence"), FeaturesArtefact

    encoder: EncoderConfig
    parent: Any  # a BundleArtefact

    def plan(self, context: Context, window: WindowArtefact, sequence: SequenceArtefact) -> GrownEncoding:
        """The encoder; ConfigError where it is not the champion's."""
        earlier = _features_of(self.parent)
        encoding = Encoding.of(sequence.with_head(self.encoder), context)
        if encoding.identity != earlier.identity:
            raise ConfigError(
                f"the encoder is {encoding.identity}, that of the champion {earlier.identity}",
                where="encoder",
                hint="Give the champion's encoder, or `kcm run` anew",
            )
        return GrownEncoding(
            encoder=encoding.encoder, identity=encoding.identity, device=encoding.device, parent=earlier
        )


class LoggedAnswers(Plan):
    """The champion's outcomes, and the large model's answers in the log to the rows of the window's task."""

    identity: str
    parent: Any = Field(exclude=True)  # an OutcomesArtefact

    def dependencies(self, window: WindowArtefact, sequence: SequenceArtefact) -> tuple[Artefact, ...]:
        """The grown sequence, which is made of the window, and the champion's outcomes."""
        return sequence, self.parent

    def write(self, attempt: Attempt, window: WindowArtefact, sequence: SequenceArtefact) -> None:
        """One Parquet file per task, of which the last alone is made."""
        inherit(attempt, self.parent, window.forgotten_rows, without=IDENTITY)
        write_identity(attempt.folder, self.identity, runtime=self.parent.runtime, device=self.parent.device)
        names, number = sequence.names, len(sequence.names.tasks) - 1
        rows = sequence.task(number)
        decisions = _decisions(window, rows)
        labels = {label: position for position, label in enumerate(names.answers)}
        label_N = np.array([labels.get(label, -1) for label in decisions["large_label"].to_pylist()], dtype=np.int64)
        # What an answer took is not logged: it costs what it costs elsewhere.
        cost = float(np.median(self.parent.task(0)["large_cost"].to_numpy()))
        answers = Answers(
            label_N=label_N,
            probabilities_NC=_over_labels(decisions["large_probabilities"], label_N, len(names.labels)),
            cost_N=np.full(len(rows), cost),
            failed_N=decisions["large_label"].is_null().to_numpy(),
        )
        write_rows(attempt.folder, number, answers.table(rows))


class GrowOutcomes(Stage):
    """The outcomes of the grown sequence."""

    stage, version, reads, writes = Outcomes.stage, Outcomes.version, ("window", "sequence"), OutcomesArtefact

    large: LargeConfig
    parent: Any  # a BundleArtefact

    def plan(self, context: Context, window: WindowArtefact, sequence: SequenceArtefact) -> LoggedAnswers:
        """The identity of the large model, which another list of labels changes.

        ConfigError for a large model whose head was fitted on a run's rows and knows no other label.
        """
        earlier: OutcomesArtefact = self.parent.source(OutcomesArtefact, Outcomes.stage)
        if not window.new_labels:
            return LoggedAnswers(identity=earlier.identity, parent=earlier)
        if earlier.head is not None:
            raise ConfigError(
                f"the large model's head was fitted without the label {window.new_labels[0]!r}",
                where="update.more_labels",
                hint="Run anew with rows of that label, or take a large model that is asked",
            )
        large = sequence.large_with_head(self.large)
        return LoggedAnswers(identity=large.identity(sequence.names.answers, context.assets_path), parent=earlier)


def inherit(attempt: Attempt, parent: ShardedArtefact, forgotten: Collection[str], *, without: str = "") -> None:
    """Make the files of a finished artefact, but for the one named, those of an attempt, by the storage itself.

    Shards that hold rows of `forgotten` ids are written anew, without them.
    """
    left = {without}
    for name, path in parent.all_shards.items() if forgotten else ():
        rows = read_table(parent.file(name))
        kept = rows.filter(pc.invert(pc.is_in(rows["id"], pa.array(sorted(forgotten)))))
        if len(kept) < len(rows):
            write_table(kept, attempt.folder / name, row_group_size=GROUP_ROWS)
            left |= {name, f"{path.name.partition('.')[0]}{INDEX}"}  # the index counts all rows
    files = parent.manifest["files"]
    attempt.take({name: Kept(parent.path / name, files[name]) for name in files if name not in left})


def _features_of(parent: BundleArtefact) -> FeaturesArtefact:
    """The features that a bundle's cascade was trained on."""
    return parent.source(FeaturesArtefact, Features.stage)


def _decisions(window: WindowArtefact, rows: pa.Table) -> pa.Table:
    """The window's decisions that became these rows, in the order of the rows."""
    places = pc.index_in(rows["id"], value_set=row_ids(window.table).combine_chunks())
    return window.table.take(places)


def _over_labels(column: pa.ChunkedArray, label_N: np.ndarray, num_labels: int) -> np.ndarray:
    """Probabilities float32 [N, C] over the label list; NaN where there are none, or none of the labels was answered.

    The log has them over the answers that the large model had, whose first ones are the labels.
    """
    over_NC = np.full((len(label_N), num_labels), np.nan, dtype=np.float32)
    for row, (given, label) in enumerate(zip(column.to_pylist(), label_N, strict=True)):
        if given is None or not 0 <= label < num_labels:
            continue
        known = np.asarray(given[:num_labels], dtype=np.float64)
        over_NC[row] = 0.0
        over_NC[row, : len(known)] = known / known.sum()
    return over_NC
