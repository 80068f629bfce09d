"""Stage `features`: encodes every row once with the frozen encoder, and adds words to texts if they help."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Self

from pydantic import Field, InstanceOf
from rich.markup import escape

from kcm.encoders import EncoderConfig
from kcm.encoders.precomputed import vector_columns
from kcm.encoders.runtime import resolved, runtime_of
from kcm.encoders.text_settings import fits_words
from kcm.errors import ConfigError
from kcm.large import LargeConfig
from kcm.report.formats import plural
from kcm.tasks.shards import task_shards
from pipelines.batch.encoding import encode_shards
from pipelines.batch.mapping import run_remotely
from pipelines.context import Attempt, Context
from pipelines.stages.parent import inherit, new_shards
from pipelines.stages.preview import preview, preview_lines
from pipelines.stages.stage import Plan, Stage
from pipelines.stages.words import add_words
from pipelines.store.artefact import Artefact, Recipe, write_json
from pipelines.store.features import CUT, FACTS, IDENTITY, WORDS, FeaturesArtefact
from pipelines.store.sequence import SequenceArtefact

_EMBEDDED = "embedded"  # features before words join them


class Encoding(Plan):
    """An encoder with its identity, and the kind of device that it runs on."""

    encoder: EncoderConfig
    identity: str
    device: str
    words: bool = Field(False, description="Whether words are fitted beside the features of texts.")
    preview_seed: int | None = Field(None, exclude=True)  # draws the rows of the preview; None: no preview
    parent: InstanceOf[FeaturesArtefact] | None = Field(None, exclude=True)  # the features of the earlier tasks
    forgotten_rows: frozenset[str] = Field(frozenset(), exclude=True)

    @classmethod
    def of(
        cls,
        encoder: EncoderConfig,
        context: Context,
        *,
        words: bool = False,
        parent: FeaturesArtefact | None = None,
        where: str = "encoder",
    ) -> Self:
        """The encoder with its identity on this machine; of a parent, the encoder of its features.

        Raises ConfigError, naming the section `where`, for another encoder than the parent's.
        """
        if parent is not None:
            encoder, words = parent.made_by(encoder), False  # its words are fitted
        identity = encoder.identity(context.assets_path)
        if parent is not None and identity != parent.identity:
            raise ConfigError(
                f"the encoder is {identity}, the parent version's is {parent.identity}",
                where=where,
                hint="Set that encoder, or run `kcm run` without --append",
            )
        return cls(encoder=encoder, identity=identity, device=context.cluster.device, words=words, parent=parent)

    def dependencies(self, *_: Any, **reads: Any) -> tuple[Artefact, ...]:
        """The rows, and the features of the earlier ones."""
        return (reads["sequence"], self.parent) if self.parent else (reads["sequence"],)

    def write(self, attempt: Attempt, sequence: SequenceArtefact, **reads: Any) -> None:
        """Write a file for every shard, with the same rows; only those of new tasks are computed.

        Raises DataError, naming the rows, if the encoder cannot read a row or returns a NaN.
        """
        context = attempt.context
        encoder = resolved(self.encoder, context.assets_path, self.device)  # once for all actors
        facts: dict[str, Any] = {"runtime": runtime_of(encoder), "preview": {}, CUT: 0}
        if self.parent:
            inherit(attempt, self.parent, without={FACTS}, forgotten_rows=self.forgotten_rows)
            facts |= self.parent.facts
        num_cut = self.encode(attempt, encoder, sequence=sequence, **reads)
        sources = new_shards(sequence, self.parent)
        if self.words and (num_words := add_words(attempt, attempt.scratch / _EMBEDDED, list(sources))):
            identity = encoder.aligned(attempt.folder / WORDS).identity(context.assets_path)
            facts |= {WORDS: num_words, IDENTITY: identity}
        if self.preview_seed is not None:
            tasks = {
                name: task_shards(attempt.folder, number, sequence.all_shards)
                for number, name in enumerate(sequence.names.tasks)
            }
            new_tasks = {name: paths for name, paths in tasks.items() if paths[0].name in sources}
            counts = run_remotely(preview, new_tasks, self.preview_seed, context.store.storage.readable)
            facts["preview"] = facts["preview"] | counts
        write_json(attempt.folder / FACTS, facts | {CUT: facts[CUT] + num_cut})

    def encode(self, attempt: Attempt, encoder: EncoderConfig, *_: Any, **reads: Any) -> int:
        """Write the features of the new shards; returns the number of texts that were cut."""
        sources = new_shards(reads["sequence"], self.parent)
        folder = attempt.scratch / _EMBEDDED if self.words else attempt.folder
        return encode_shards(attempt, encoder, sources, folder, attempt.scratch, with_texts=self.words)

    def build(self, sequence: SequenceArtefact, context: Context, label: str) -> FeaturesArtefact:
        """The features of a sequence as part of the stage `label`."""
        recipe = Recipe(Features.stage, Features.version, self.section(), self.dependencies(sequence=sequence))
        write, starts = partial(self.write, sequence=sequence), partial(self.starts_cluster, context, sequence=sequence)
        features = context.build(recipe, write, label=label, starts_cluster=starts).as_a(FeaturesArtefact)
        _say_cut(features, context, "large.encoder")
        return features


class Features(Stage):
    """The rows of each task through the collaborator's encoder."""

    stage, version, writes = "features", 4, FeaturesArtefact
    reads: ClassVar[tuple[str, ...]] = ("sequence",)

    encoder: EncoderConfig
    large: LargeConfig
    seed: int

    def check(self) -> None:
        """Raise ConfigError if large model and encoder read different vectors: a row has only one."""
        columns = vector_columns(self.large.backbone) if self.large.backbone else ()
        if columns not in ((), vector_columns(self.encoder)):
            raise ConfigError(
                f"the large model reads the vectors {', '.join(columns)}, which are not the encoder's",
                where="large.encoder",
                hint="Give both the same columns, or the large model an encoder of texts or pictures",
            )

    def plan(self, context: Context, *_: Any, **reads: Any) -> Encoding:
        """The encoder, and whether words are fitted beside it."""
        earlier = self.parent and self.parent.features
        plan = Encoding.of(self.encoder, context, words=fits_words(self.encoder), parent=earlier)
        return plan.model_copy(update={"preview_seed": self.seed})

    def publish(self, artefact: FeaturesArtefact, context: Context) -> None:
        """Report the quality of the features before the large model is asked."""
        _say_cut(artefact, context, "encoder")
        if artefact.num_words:
            context.reporter.say(f"[dim]words help: {artefact.num_words} topics of words join the embedding[/dim]")
        for line in preview_lines(artefact.preview):
            context.reporter.say(f"[dim]{escape(line)}[/dim]")


def _say_cut(features: FeaturesArtefact, context: Context, section: str) -> None:
    if features.num_cut:
        context.reporter.say(
            f"[yellow]warning: {section}: of {plural(features.num_cut, 'text')} the end is not read: they have more"
            f" tokens than {section}.max_length, or than the model takes[/yellow]"
        )
