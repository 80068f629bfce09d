"""Stage `outcomes`: the large model's answer to every row.

For a classifier a head is fitted on its features, recorded answers are looked up, and any other model is asked. The
next run retries the rows on which a server failed.

A run that continues a sequence keeps the answers to earlier rows, as far as the same question would be asked again. A
longer label list is another question: certify and test rows are asked again, since the promise is about the model that
will be served; train and validate rows keep their answers. A classifier's head is fitted again on all labelled rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, InstanceOf, PrivateAttr
from rich.markup import escape

from kcm.encoders import EncoderConfig
from kcm.encoders.runtime import resolved, runtime_of
from kcm.encoders.text_settings import fits_words
from kcm.errors import ConfigError, DataError
from kcm.large import LargeConfig
from kcm.large.base import PaidModel, RecordedAnswers
from kcm.parquet import read_table
from kcm.tasks.sequence import read_shard
from pipelines.batch.asking import ask_shards, server_model
from pipelines.batch.classifying import classify_shards
from pipelines.batch.mapping import run_remotely
from pipelines.batch.recorded import look_up_shards
from pipelines.batch.shards import write_shard
from pipelines.context import Attempt, Context
from pipelines.stages.features import Encoding
from pipelines.stages.parent import inherit, new_shards
from pipelines.stages.stage import Plan, Stage
from pipelines.store.artefact import Artefact
from pipelines.store.features import FeaturesArtefact
from pipelines.store.outcomes import HEAD, IDENTITY, OutcomesArtefact, in_label_list, write_identity
from pipelines.store.sequence import Names, SequenceArtefact


def finished(stage: Stage, plan: Plan, context: Context, sequence: SequenceArtefact) -> OutcomesArtefact | None:
    """The answers if they exist already."""
    artefact = context.store.find(stage.recipe(plan, sequence=sequence))
    return artefact.as_a(OutcomesArtefact) if artefact else None


def server_fault(context: Context, large: LargeConfig, names: Names) -> str | None:
    """Why a server does not answer a probe; None if it does, or if the model cannot be probed."""
    model = server_model(context, large, names)
    if not isinstance(model, PaidModel):
        return None
    answer = model.probe()
    return None if answer.off_label else answer.error


class ClassifierOutcomes(Plan):
    """A linear head on the large encoder's features, fitted on the labelled train rows of all tasks.

    Train rows carry out-of-fold probabilities, which are as confident as probabilities of new rows.
    """

    large: LargeConfig
    seed: int
    embedded: InstanceOf[FeaturesArtefact] = Field(exclude=True)
    earlier: InstanceOf[OutcomesArtefact] | None = Field(None, exclude=True)  # answers to traffic, which stay

    def dependencies(self, sequence: SequenceArtefact) -> tuple[Artefact, ...]:
        """The features of the large model's encoder, which are made of the rows."""
        return (self.embedded, self.earlier) if self.earlier else (self.embedded,)

    def write(self, attempt: Attempt, sequence: SequenceArtefact) -> None:
        """The answers, and the head."""
        names, context = sequence.names, attempt.context
        traffic = {
            path.name
            for number, task in enumerate(names.tasks)
            if task in sequence.grown_tasks
            for path in sequence.shards(number)
        }
        if self.earlier:
            inherit(attempt, self.earlier, without=self.earlier.manifest["files"].keys() - traffic)
        head = classify_shards(attempt, len(names.labels), self.seed, self.embedded, without=traffic)
        head.save(attempt.folder / HEAD)
        identity = self.large.identity(names.labels, context.assets_path, head=head)
        write_identity(attempt.folder, identity, runtime=self.embedded.runtime, device=self.embedded.device)


class RecordedOutcomes(Plan):
    """Recorded answers, found by id."""

    large: LargeConfig
    identity: str
    earlier: InstanceOf[OutcomesArtefact] | None = Field(None, exclude=True)

    def dependencies(self, sequence: SequenceArtefact) -> tuple[Artefact, ...]:
        """The rows, and the answers to the earlier ones."""
        return (sequence, self.earlier) if self.earlier else (sequence,)

    def write(self, attempt: Attempt, sequence: SequenceArtefact) -> None:
        """The answers."""
        if self.earlier:
            inherit(attempt, self.earlier, without={IDENTITY})
        names, context = sequence.names, attempt.context
        model = self.large.build(names.answers, context.assets_path)
        if not isinstance(model, RecordedAnswers):
            fault = f"the large model {self.large.adapter!r} reads no part of a row, and has no recorded answers"
            raise ConfigError(fault, where="large.adapter", hint="Give its model a method `tables`")
        sources = new_shards(sequence, self.earlier)
        arguments = model, self.large.location, names, sources, attempt.folder, context.store.storage
        usage = run_remotely(look_up_shards, *arguments)
        write_identity(attempt.folder, self.identity, **_sum_of(self.earlier, usage))


class AskedOutcomes(Plan):
    """Answers of a model that needs no fitting; `attempt` distinguishes the next run's artefact from the first."""

    large: LargeConfig
    identity: str
    device: str
    attempt: int = 0

    earlier: InstanceOf[OutcomesArtefact] | None = Field(None, exclude=True)

    def section(self) -> dict[str, Any]:
        """The fields that the fingerprint covers."""
        section = super().section()
        return section if self.attempt else {name: value for name, value in section.items() if name != "attempt"}

    def dependencies(self, sequence: SequenceArtefact) -> tuple[Artefact, ...]:
        """The rows, and the answers to the earlier ones."""
        return (sequence, self.earlier) if self.earlier else (sequence,)

    def write(self, attempt: Attempt, sequence: SequenceArtefact) -> None:
        """The answers."""
        names, context = sequence.names, attempt.context
        large = self.large.with_backbone(lambda backbone: resolved(backbone, context.assets_path, self.device))
        sources, again = new_shards(sequence, self.earlier), dict[str, Path]()
        if self.earlier:
            again = self._again(attempt, sequence) if self.earlier.identity != self.identity else again
            inherit(attempt, self.earlier, without={IDENTITY, *again})
        usage = ask_shards(attempt, large, names, sources | again, attempt.folder, attempt.scratch)
        for name in again:
            self._join(attempt, name, len(names.labels))
        runtime = runtime_of(large.backbone) if large.backbone else None
        costs = _sum_of(self.earlier, usage)
        write_identity(attempt.folder, self.identity, runtime=runtime, device=self.device, **costs)

    def _again(self, attempt: Attempt, sequence: SequenceArtefact) -> dict[str, Path]:
        """Shards with the rows of earlier tasks that are asked again: those that certify or measure."""
        storage, shards = attempt.context.store.storage, dict[str, Path]()
        for number, task in enumerate(sequence.names.tasks):
            for path in sequence.shards(number) if task not in sequence.grown_tasks else ():
                if not self.earlier or not self.earlier.has(path.name):
                    continue
                rows = read_shard(sequence.file(path.name))
                rows = rows.filter(pc.is_in(rows["split"], pa.array(["certify", "test"])))
                if len(rows):
                    shards[path.name] = attempt.scratch / "again" / path.name
                    write_shard(storage, [rows], shards[path.name])
        return shards

    def _join(self, attempt: Attempt, name: str, num_labels: int) -> None:
        """Write a shard with its new answers, and the earlier answers to its other rows."""
        assert self.earlier is not None
        storage = attempt.context.store.storage
        new = read_table(storage.readable(attempt.folder / name))
        before = (
            in_label_list(read_table(self.earlier.file(name)), num_labels).select(new.column_names).cast(new.schema)
        )
        places = pc.index_in(before["id"], value_set=new["id"].combine_chunks())
        rows = pa.concat_tables([new, before])
        numbers = pa.array(range(len(new), len(rows)), pa.int32())
        write_shard(storage, [rows.take(pc.coalesce(places, numbers))], attempt.folder / name)


def _sum_of(earlier: OutcomesArtefact | None, usage: Mapping[str, Any]) -> dict[str, Any]:
    """The usage of all answers; faults are those of the new answers."""
    before = earlier.usage if earlier else {}
    return {
        name: value + before.get(name, 0) if name in ("rows", "tokens", "currency") else value
        for name, value in usage.items()
    }


class Outcomes(Stage):
    """One Parquet file per task, its rows as in the features: label, probabilities, cost, error.

    A label is an index into the label list; the index after the last label is none-of-these.
    """

    stage, version, reads, writes = "outcomes", 1, ("sequence",), OutcomesArtefact

    encoder: EncoderConfig
    large: LargeConfig
    seed: int
    _attempts: dict[str, AskedOutcomes] = PrivateAttr(default_factory=dict)  # by the sequence's fingerprint

    def plan(self, context: Context, sequence: SequenceArtefact) -> Plan:
        """How the answers of this large model are made; a server is probed at most once."""
        large, earlier = self.large, self.parent and self.parent.outcomes
        if large.fits_on_train:
            embedded = self._encoding(large, context, sequence).build(sequence, context, label=self.stage)
            answered_traffic = earlier if sequence.grown_tasks else None
            return ClassifierOutcomes(large=large, seed=self.seed, embedded=embedded, earlier=answered_traffic)
        answer_names = sequence.names.answers
        identity = large.identity(answer_names, context.assets_path)
        if large.is_recorded:
            return RecordedOutcomes(large=large, identity=identity, earlier=earlier)
        plan = AskedOutcomes(large=large, identity=identity, device=context.cluster.device, earlier=earlier)
        if not large.remote:
            return plan
        if sequence.fingerprint not in self._attempts:
            self._attempts[sequence.fingerprint] = self._next_attempt(plan, context, sequence)
        return self._attempts[sequence.fingerprint]

    def _next_attempt(self, plan: AskedOutcomes, context: Context, sequence: SequenceArtefact) -> AskedOutcomes:
        """The plan that asks again for rows that wait for the server; the last one if the server still fails."""
        while (artefact := finished(self, plan, context, sequence)) and (waiting := artefact.asked.get("waiting")):
            again = plan.model_copy(update={"attempt": plan.attempt + 1})
            unasked = not finished(self, again, context, sequence)
            if unasked and (reason := server_fault(context, plan.large, sequence.names)):
                context.reporter.say(
                    f"[yellow]{waiting} rows still wait for an answer of the large model, which does not give one:"
                    f" {escape(reason)}[/yellow]"
                )
                break
            plan = again
        return plan

    def _encoding(self, large: LargeConfig, context: Context, sequence: SequenceArtefact) -> Encoding:
        """The features of the large model's encoder. If it is the small side's, all rows are encoded once for both."""
        assert large.backbone is not None  # the head is fitted on its features
        backbone, small = large.backbone, self.encoder
        earlier = self.parent and self.parent.outcomes.source(FeaturesArtefact, "features")
        shares = backbone.identity(context.assets_path) == small.identity(context.assets_path)
        words = shares and fits_words(backbone) and fits_words(small)
        return Encoding.of(backbone, context, words=words, parent=earlier, where="large.encoder")

    def check(self) -> None:
        """Raise ConfigError if the server's key is missing."""
        if (server := self.large.upstream) is not None:
            server.key()

    def prepare(self, context: Context, sequence: SequenceArtefact) -> None:
        """Try the large model before anything is encoded.

        Recorded answers are looked up. A server that has rows to answer is probed, once the encoder has been loaded,
        because the probe costs money. Raises DataError if the server fails, AssetError if the encoder does.
        """
        if self.large.is_recorded:
            self.build({sequence.kind: sequence}, context)
        if not self.large.remote:
            return
        self.encoder.identity(context.assets_path)  # fails where the model is missing
        plan = self.plan(context, sequence)
        asked = self._attempts.get(sequence.fingerprint)
        has_answered = asked is not None and asked.attempt > 0  # just now, when it was planned
        if has_answered or finished(self, plan, context, sequence):
            return
        self.encoder.build(context.assets_path)
        if reason := server_fault(context, self.large, sequence.names):
            raise DataError(
                f"the large model does not answer a first question: {reason}",
                where="large",
                hint="Nothing was computed; start again once it answers",
            )
