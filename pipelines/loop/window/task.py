"""The window as the next task of the champion's sequence: what `tasks`, `features` and `outcomes` take from the log.

The decisions of a window become rows of the task as follows:

    train      every answer of the large model joins the distillation pool, unweighted, and so do labels of people
               (a closed form uses the answer as the label if no person gave one)
    validate   decisions that the large model answered; the label is that answer
    test       the same
    certify    nothing: these decisions are certified on as logged, and never become rows

Labels that people volunteer are used for training only: people report errors, so their labels are no sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from kcm.config import Config
from kcm.encoders import EncoderConfig
from kcm.errors import DataError
from kcm.inputs.labels import OUT_OF_SCOPE, UNLABELLED
from kcm.large import LargeConfig, LinearHead
from kcm.learners import LearnerConfig
from kcm.tasks.sequence import DESCRIPTION, SCHEMA, Task, append_task
from kcm.tasks.shards import write_shards
from kcm.tasks.splits import SPLITS, Split
from pipelines.context import Attempt, Context
from pipelines.loop.window.judged_window import window_features
from pipelines.loop.window.stage import WindowArtefact
from pipelines.serve.log.window import row_ids
from pipelines.stages.features import Encoding, Features
from pipelines.stages.outcomes import Outcomes
from pipelines.stages.parent import inherit
from pipelines.stages.stage import Plan, Stage
from pipelines.stages.tasks import Tasks
from pipelines.store.artefact import Artefact
from pipelines.store.features import SECONDS, features_table
from pipelines.store.outcomes import HEAD, IDENTITY, Answers, OutcomesArtefact, write_identity
from pipelines.store.sequence import Names, SequenceArtefact


class TrafficTasks(Stage, Plan):
    """The champion's task sequence, and the window as one more task."""

    stage, version, reads, writes, unit = Tasks.stage, Tasks.version, ("window",), SequenceArtefact, "tasks"

    learner: LearnerConfig = Field(exclude=True)  # covered by `is_taught`
    seed: int = Field(exclude=True)
    is_taught: bool = Field(False, description="Whether answers of the large model are labels of train rows.")

    @classmethod
    def of(cls, run: Config, **more: Any) -> Self:
        """The stage with its part of a run's configuration."""
        return super().of(run, is_taught=run.learner.closed_form, **more)  # type: ignore[attr-defined]

    def plan(self, context: Context, window: WindowArtefact) -> TrafficTasks:
        """Itself; ConfigError for a memory without room for the new labels."""
        self.learner.build(self.seed).check(len(self.parent.sequence.names.labels) + len(window.facts.new_labels))
        return self

    def dependencies(self, window: WindowArtefact) -> tuple[Artefact, ...]:
        """The window and the champion's sequence."""
        return window, self.parent.sequence

    def write(self, attempt: Attempt, window: WindowArtefact) -> None:
        """The sequence with one more task. DataError for a window without rows to measure or choose on."""
        sequence, facts = self.parent.sequence, window.facts
        known_names: Names = sequence.names
        names = Names(
            (*known_names.tasks, facts.task), (*known_names.labels, *facts.new_labels), known_names.none_label
        )
        task = task_of(window.table, facts.task, names, taught=self.is_taught)
        present = set(pc.unique(task.rows["split"]).to_pylist())
        for split in ("train", "validate", "test"):
            if split not in present:
                raise DataError(
                    f"the large model answered no decision of a {split} unit",
                    where=f"the window of task {facts.task!r}",
                    hint="Wait for more traffic, or raise serve.audit.share",
                )
        inherit(attempt, sequence, without={DESCRIPTION}, forgotten_rows=self.parent.forgotten_rows)
        append_task(sequence.file(DESCRIPTION).parent, attempt.folder, task, names.labels)


class TrafficEncoding(Encoding):
    """The features of the window's task from the log, or else from the champion's encoder."""

    def encode(
        self, attempt: Attempt, encoder: EncoderConfig, sequence: SequenceArtefact, window: WindowArtefact
    ) -> int:
        """Write the features of the last task."""
        number = len(sequence.names.tasks) - 1
        rows = sequence.task(number)
        features_ND = window_features(_decisions(window, rows), encoder, attempt, attempt.scratch)
        assert self.parent is not None
        # The log has no encoding times: a row costs as much as in other tasks.
        seconds = float(np.median(self.parent.task(0)[SECONDS].to_numpy()))
        write_shards(attempt.folder, number, [features_table(rows, features_ND, np.full(len(rows), seconds))])
        return 0


class TrafficFeatures(Features):
    """The champion's features, and those of the window's task."""

    reads = ("window", "sequence")

    def plan(self, context: Context, window: WindowArtefact, sequence: SequenceArtefact) -> Encoding:
        """The champion's encoder."""
        plan = TrafficEncoding.of(self.encoder, context, parent=self.parent.features)
        return plan.model_copy(update={"forgotten_rows": self.parent.forgotten_rows})


class TrafficOutcomes(Stage, Plan):
    """The champion's outcomes, and the logged answers of the large model for the window's task."""

    stage, version, reads, writes = Outcomes.stage, Outcomes.version, ("window", "sequence"), OutcomesArtefact

    large: LargeConfig

    def dependencies(self, window: WindowArtefact, sequence: SequenceArtefact) -> tuple[Artefact, ...]:
        """The grown sequence and the champion's outcomes."""
        return sequence, self.parent.outcomes

    def write(self, attempt: Attempt, window: WindowArtefact, sequence: SequenceArtefact) -> None:
        """One Parquet file per task; only the last is computed."""
        earlier: OutcomesArtefact = self.parent.outcomes
        head = {HEAD} if window.has(HEAD) else set()  # a sequence that has grown
        identity = self._identity(window, sequence, attempt.context)
        inherit(attempt, earlier, without={IDENTITY} | head, forgotten_rows=self.parent.forgotten_rows)
        attempt.take({name: window.path / name for name in head})
        write_identity(attempt.folder, identity, runtime=earlier.runtime, device=earlier.device)
        names, number = sequence.names, len(sequence.names.tasks) - 1
        rows = sequence.task(number)
        decisions = _decisions(window, rows)
        labels = {label: position for position, label in enumerate(names.answers)}
        label_N = np.array([labels.get(label, -1) for label in decisions["large_label"].to_pylist()], dtype=np.int64)
        # The log has no answer times: an answer costs as much as in other tasks.
        median_cost = float(np.median(earlier.task(0)["large_cost"].to_numpy()))
        answers = Answers(
            label_N=label_N,
            probabilities_NC=_over_labels(decisions["large_probabilities"], label_N, len(names.labels)),
            cost_N=np.full(len(rows), median_cost),
            failed_N=decisions["large_label"].is_null().to_numpy(),
        )
        write_shards(attempt.folder, number, [answers.table(rows)])

    def _identity(self, window: WindowArtefact, sequence: SequenceArtefact, context: Context) -> str:
        """The identity of the large model, which depends on the list of labels."""
        if not window.facts.new_labels:
            earlier: OutcomesArtefact = self.parent.outcomes
            return earlier.identity
        large, names = self.large, sequence.names
        if not window.has(HEAD):
            return large.identity(names.answers, context.assets_path)
        head = LinearHead.load(window.file(HEAD))  # it does not answer none-of-these
        return large.identity(names.labels, context.assets_path, head=head)


def task_of(window: pa.Table, name: str, names: Names, *, taught: bool = False) -> Task:
    """The task made from a window; `names` belong to the grown sequence, with its label list.

    Train rows without a person's label have no label; the large model's probabilities teach them. Rows that are
    `taught` get its answer as their label: a closed form reads labels only. Rows of a split are in the order of their
    decisions, out-of-scope rows last. A row's group is its unit.
    """
    numbers = {label: number for number, label in enumerate(names.labels)}
    if names.none_label is not None:
        numbers[names.none_label] = OUT_OF_SCOPE
    rows = pa.concat_tables([_rows(window, split, numbers, taught) for split in SPLITS])
    present = set(rows["label"].to_pylist())
    labels = tuple(label for number, label in enumerate(names.labels) if number in present)
    return Task(name, labels, rows)


def _rows(window: pa.Table, split: Split, numbers: Mapping[str, int], by_large: bool) -> pa.Table:
    """The rows of a split."""
    table = window.filter(pc.fill_null(pc.equal(window["purpose"], pa.scalar(split)), False))
    if split == "certify":
        table = table.slice(0, 0)
    is_measured = split != "train"
    row_labels = table["label"]  # callers choose which items they label, so their labels measure nothing
    if is_measured:
        row_labels = table["large_label"]
    elif by_large:
        row_labels = pc.coalesce(row_labels, table["large_label"])
    has_answer = table["large_label"].is_valid()
    labels = [numbers.get(label, UNLABELLED) for label in row_labels.to_pylist()]
    if is_measured:  # a large model may answer outside the list
        is_labelled = pc.and_(has_answer, pa.array([label != UNLABELLED for label in labels], pa.bool_()))
    else:  # networks have no output for none-of-these: the large model's probabilities teach such a row
        is_labelled = pc.or_(has_answer, row_labels.is_valid())
        labels = [UNLABELLED if label == OUT_OF_SCOPE else label for label in labels]
    table = table.append_column("id", row_ids(table)).append_column("number_of_label", pa.array(labels, pa.int64()))
    table = table.filter(is_labelled)
    is_out_of_scope = pc.equal(table["number_of_label"], OUT_OF_SCOPE)  # these rows come last, together
    table = pa.concat_tables([table.filter(pc.invert(is_out_of_scope)), table.filter(is_out_of_scope)])
    columns = {
        "id": table["id"],
        "text": pc.fill_null(table["text"], ""),
        "image": pc.fill_null(table["image"], b""),
        "label": table["number_of_label"],
        "group": table["unit"],
    }
    rows = pa.table(columns).cast(SCHEMA)
    return rows.append_column("split", pa.array([split] * len(rows), pa.string()))


def _decisions(window: WindowArtefact, rows: pa.Table) -> pa.Table:
    """The window's decisions behind these rows, in the order of the rows."""
    places = pc.index_in(rows["id"], value_set=row_ids(window.table).combine_chunks())
    return window.table.take(places)


def _over_labels(column: pa.ChunkedArray, label_N: np.ndarray, num_labels: int) -> np.ndarray:
    """Probabilities float32 [N, C] over the label list; NaN if there are none, or if the answer is no label.

    The log has them over all answers of the large model, and the labels come first.
    """
    over_NC = np.full((len(label_N), num_labels), np.nan, dtype=np.float32)
    for row, (row_probabilities, label) in enumerate(zip(column.to_pylist(), label_N, strict=True)):
        if row_probabilities is None or not 0 <= label < num_labels:
            continue
        probabilities = np.asarray(row_probabilities[:num_labels], dtype=np.float64)
        over_NC[row] = 0.0
        over_NC[row, : len(probabilities)] = probabilities / probabilities.sum()
    return over_NC
