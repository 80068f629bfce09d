"""Stage `outcomes`: the large model's answer to every row.

A head is fitted to a classifier's features, recorded answers are looked up, and any other model is asked.
"""

from __future__ import annotations

from pydantic import Field, InstanceOf

from kcm.large import LargeConfig
from pipelines.batch.asking import LargeSpec, ask_shards
from pipelines.batch.classifying import classify
from pipelines.batch.lookup import look_up
from pipelines.batch.pool import kept
from pipelines.context import Attempt, Context
from pipelines.stages.features import Encoding
from pipelines.stages.stage import Plan, Stage
from pipelines.store.artefact import Artefact
from pipelines.store.features import FeaturesArtefact
from pipelines.store.outcomes import HEAD, OutcomesArtefact, write_identity
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
        names, context = sequence.names, attempt.context
        made, head = classify(
            self.large,
            len(names.labels),
            self.seed,
            self.embedded.all_shards,
            cluster=context.cluster,
            scratch=attempt.scratch,
            storage=attempt.context.store.storage,
            bar=attempt.bar,
        )
        attempt.take(kept(made))
        head.save(attempt.folder / HEAD)
        identity = self.large.identity(names.labels, context.assets_path, head=head)
        write_identity(attempt.folder, identity, runtime=self.embedded.runtime, device=self.embedded.device)


class Lookup(Plan):
    """Recorded answers, found by id."""

    large: LargeConfig
    identity: str

    def write(self, attempt: Attempt, sequence: SequenceArtefact) -> None:
        """The answers."""
        made, took = look_up(
            self.large,
            sequence.names.answers,
            sequence.all_shards,
            num_labels=len(sequence.names.labels),
            cluster=attempt.context.cluster,
            scratch=attempt.scratch,
            storage=attempt.context.store.storage,
            bar=attempt.bar,
        )
        attempt.take(kept(made))
        write_identity(attempt.folder, self.identity, **took)


class Ask(Plan):
    """Answers of a model that needs no fitting."""

    large: LargeConfig
    identity: str
    device: str

    def write(self, attempt: Attempt, sequence: SequenceArtefact) -> None:
        """The answers under the task prompt."""
        names, context = sequence.names, attempt.context
        large = self.large.resolved(context.assets_path, self.device)
        spec = LargeSpec(large, names.answers, len(names.labels))
        made, took = ask_shards(context, spec, sequence.all_shards, scratch=attempt.scratch, bar=attempt.bar)
        attempt.take(kept(made))
        write_identity(attempt.folder, self.identity, runtime=large.in_use, device=self.device, **took)


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
        identity = large.identity(answer_names, context.assets_path)
        if large.is_recorded:
            return Lookup(large=large, identity=identity)
        return Ask(large=large, identity=identity, device=context.cluster.device)
