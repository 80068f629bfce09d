"""Stage `outcomes`: the large model's answer to every row.

A head is fitted to a classifier's features, recorded answers are looked up, and any other model is asked.
"""

from __future__ import annotations

from pydantic import Field, InstanceOf

from kcm.large import LargeConfig
from pipelines.batch.asking import LargeSpec, ask_shards
from pipelines.batch.classifying import classify_shards
from pipelines.batch.mapping import run_remotely
from pipelines.batch.recorded import look_up_shards
from pipelines.context import Attempt, Context
from pipelines.stages.features import Encoding
from pipelines.stages.stage import Plan, Stage
from pipelines.store.artefact import Artefact
from pipelines.store.features import FeaturesArtefact
from pipelines.store.outcomes import HEAD, OutcomesArtefact, write_identity
from pipelines.store.sequence import SequenceArtefact


class ClassifierOutcomes(Plan):
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
        made, head = classify_shards(
            context,
            self.large,
            len(names.labels),
            self.seed,
            self.embedded.all_shards,
            attempt.folder,
            scratch=attempt.scratch,
            bar=attempt.bar,
        )
        attempt.note(made)
        head.save(attempt.folder / HEAD)
        identity = self.large.identity(names.labels, context.assets_path, head=head)
        write_identity(attempt.folder, identity, runtime=self.embedded.runtime, device=self.embedded.device)


class RecordedOutcomes(Plan):
    """Recorded answers, found by id."""

    large: LargeConfig
    identity: str

    def write(self, attempt: Attempt, sequence: SequenceArtefact) -> None:
        """The answers."""
        names, storage = sequence.names, attempt.context.store.storage
        given = self.large, names.answers, sequence.all_shards, attempt.folder, len(names.labels), storage
        made, usage = run_remotely(look_up_shards, *given)
        attempt.note(made)
        write_identity(attempt.folder, self.identity, **usage)


class AskedOutcomes(Plan):
    """Answers of a model that needs no fitting."""

    large: LargeConfig
    identity: str
    device: str

    def write(self, attempt: Attempt, sequence: SequenceArtefact) -> None:
        """The answers under the task prompt."""
        names, context = sequence.names, attempt.context
        large = self.large.resolved(context.assets_path, self.device)
        spec = LargeSpec(large, names.answers, len(names.labels))
        made, usage = ask_shards(
            context, spec, sequence.all_shards, attempt.folder, scratch=attempt.scratch, bar=attempt.bar
        )
        attempt.note(made)
        write_identity(attempt.folder, self.identity, runtime=large.in_use, device=self.device, **usage)


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
            return ClassifierOutcomes(large=large, seed=self.seed, embedded=embedded)
        answer_names = sequence.names.answers
        identity = large.identity(answer_names, context.assets_path)
        if large.is_recorded:
            return RecordedOutcomes(large=large, identity=identity)
        return AskedOutcomes(large=large, identity=identity, device=context.cluster.device)
