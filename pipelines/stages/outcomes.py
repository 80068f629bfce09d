"""Stage `outcomes`: the large model's answer to every row.

A head is fitted to a classifier's features, recorded answers are looked up, and any other model is asked.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, InstanceOf

from kcm.inputs.content import Content
from kcm.inputs.labels import UNLABELLED
from kcm.large import NO_PROMPT, Item, LargeConfig
from pipelines.batch.asking import LargeSpec, ask, written_prompt
from pipelines.context import Attempt, Context
from pipelines.stages.features import Encoding
from pipelines.stages.stage import Plan, Stage
from pipelines.store.artefact import Artefact
from pipelines.store.features import SECONDS, FeaturesArtefact, feature_matrix
from pipelines.store.outcomes import HEAD, Answers, OutcomesArtefact, usage_of, write_identity
from pipelines.store.sequence import SequenceArtefact


class Classify(Plan):
    """A linear head on the large encoder's features, fitted on the labelled train rows of all tasks.

    Train rows carry out-of-fold probabilities, which are as confident as those of new rows.
    """

    large: LargeConfig
    seed: int
    embedded: InstanceOf[FeaturesArtefact] = Field(exclude=True)

    def dependencies(self, sequence: SequenceArtefact) -> tuple[Artefact, ...]:
        """The features of the large model's encoder, which are made of the rows."""
        return (self.embedded,)

    def write(self, attempt: Attempt, sequence: SequenceArtefact) -> None:
        """The answers, and the head."""
        names, bar = sequence.names, attempt.bar
        tables = [self.embedded.task(number) for number in range(len(names.tasks))]
        everything = pa.concat_tables(tables)
        inputs_ND, label_N = feature_matrix(everything), everything["label"].to_numpy()
        is_fitted = (np.asarray(everything["split"]) == "train") & (label_N != UNLABELLED)
        # A row without a group stands alone: its id is its group.
        groups = pc.coalesce(everything["group"], everything["id"]).filter(pa.array(is_fitted)).to_pylist()
        bar.update(0, 1)
        fit = self.large.fit(inputs_ND[is_fitted], label_N[is_fitted], groups, len(names.labels), self.seed)
        bar.update(1, 1)
        probabilities = fit.head.probabilities(inputs_ND)
        probabilities[is_fitted] = fit.out_of_fold_NC
        fit.head.save(attempt.folder / HEAD)
        answers = Answers(
            label_N=probabilities.argmax(axis=1),
            probabilities_NC=probabilities,
            cost_N=everything[SECONDS].to_numpy(),
            failed_N=np.zeros(len(everything), dtype=bool),
        )
        answers.write(attempt.folder, tables)
        identity = self.large.identity(names.labels, attempt.context.assets_path, head=fit.head)
        write_identity(attempt.folder, identity, runtime=self.embedded.runtime)


class Lookup(Plan):
    """Recorded answers, found by id."""

    large: LargeConfig
    identity: str
    model: Any = Field(exclude=True)  # a LargeModel

    def write(self, attempt: Attempt, sequence: SequenceArtefact) -> None:
        """The answers."""
        loaded = sequence.load()
        tables = [loaded.rows(number).select(["id", "split"]) for number in range(len(loaded.tasks))]
        items = [Item(row_id, Content()) for table in tables for row_id in table["id"].to_pylist()]
        attempt.bar.update(0, len(items))
        answers = self.model.answer(items)
        Answers.of(answers, len(loaded.label_names)).write(attempt.folder, tables)
        attempt.bar.update(len(items), len(items))
        write_identity(attempt.folder, self.identity, **usage_of(answers))


class Ask(Plan):
    """Answers of a model that needs no fitting."""

    large: LargeConfig
    identity: str
    device: str

    def write(self, attempt: Attempt, sequence: SequenceArtefact) -> None:
        """The answers under the task prompt."""
        loaded = sequence.load()
        tables = [loaded.rows(number) for number in range(len(loaded.tasks))]
        rows = pa.concat_tables([table.select(["id", "text", "image"]) for table in tables])
        rows = rows.append_column("prompt", pa.array([written_prompt(NO_PROMPT)] * len(rows)))
        large = self.large.resolved(attempt.context.assets_path, self.device)
        spec = LargeSpec(large, loaded.answer_names, len(loaded.label_names))
        answers, took = ask(attempt.context, spec, rows, scratch=attempt.scratch, bar=attempt.bar)
        answers.write(attempt.folder, tables)
        write_identity(attempt.folder, self.identity, runtime=large.in_use, **took)


class Outcomes(Stage):
    """One Parquet file per task, its rows as in the features: prompt, label, probabilities, cost, error.

    Labels count in the label list; the number after its last stands for none-of-these.
    """

    stage, version, reads, writes = "outcomes", 1, ("sequence",), OutcomesArtefact

    large: LargeConfig
    seed: int

    def plan(self, context: Context, sequence: SequenceArtefact) -> Plan:
        """How the answers of this large model are made."""
        large = sequence.large_with_head(self.large)
        if large.fits_on_train:
            assert large.backbone is not None  # what it is fitted on
            embedded = Encoding.of(large.backbone, context).build(sequence, context, label=self.stage)
            return Classify(large=large, seed=self.seed, embedded=embedded)
        answer_names = sequence.names.answers
        if not large.reads:
            model = large.build(answer_names, context.assets_path)
            return Lookup(large=large, identity=model.identity, model=model)
        identity = large.identity(answer_names, context.assets_path)
        return Ask(large=large, identity=identity, device=context.cluster.device)
