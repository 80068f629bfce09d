"""Stage `features`: every row through the frozen encoder, once.

Of several encoders it is the cheapest that is as good as the best, on a sample of the rows.

Shapes: N rows of the sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from rich.markup import escape

from kcm.encoders import EncoderConfig
from kcm.errors import ConfigError, DataError
from kcm.large import LargeConfig
from kcm.report.formats import plural
from kcm.tasks.shards import task_shards
from pipelines.batch.encoding import encode_shards, encoded
from pipelines.batch.mapping import run_remotely
from pipelines.batch.preview import SAMPLE, preview, preview_lines, right_left_out, sampled
from pipelines.context import Attempt, Context
from pipelines.stages.stage import Plan, Stage
from pipelines.store.artefact import Artefact, Recipe, write_json
from pipelines.store.features import CUT, FACTS, SECONDS, FeaturesArtefact, feature_matrix
from pipelines.store.sequence import SequenceArtefact

_FOUND = "encoders.json"


class ComparedArtefact(Artefact):
    """What every candidate is worth on the sample, and which was chosen."""

    kind = "encoders"

    @cached_property
    def found(self) -> dict[str, Any]:
        """`rows`; by candidate its `name`, `accuracy` and `milliseconds` a row; and the number of the `chosen` one."""
        return cast(dict[str, Any], self.json(_FOUND))

    def lines(self) -> Iterator[str]:
        """The same for a person."""
        for number, each in enumerate(self.found["candidates"]):
            chosen = " and is taken" if number == self.found["chosen"] else ""
            yield (
                f"encoder {each['name']} answers {each['accuracy']:.1%} of {self.found['rows']:,} train rows left out"
                f" right, at {each['milliseconds']:.1f} ms a row{chosen}"
            )


class Comparison(Plan):
    """The candidates with their identities, and the kind of device that they run on."""

    identities: tuple[str, ...]
    device: str
    seed: int
    candidates: tuple[EncoderConfig, ...] = Field(exclude=True)

    @classmethod
    def made(
        cls, candidates: tuple[EncoderConfig, ...], sequence: SequenceArtefact, seed: int, context: Context
    ) -> ComparedArtefact:
        """What the candidates are worth on the rows of a sequence, on this machine."""
        identities = tuple(each.identity(context.assets_path) for each in candidates)
        plan = cls(identities=identities, device=context.cluster.device, seed=seed, candidates=candidates)
        recipe = Recipe("encoders", 1, plan.section(), (sequence,))
        return context.build(recipe, partial(plan.write, sequence=sequence)).as_a(ComparedArtefact)

    def write(self, attempt: Attempt, sequence: SequenceArtefact) -> None:
        """Encode the sample by every candidate, and compare.

        DataError where fewer than two labels, or two units, of train rows are there.
        """
        context = attempt.context
        rows = sampled(list(sequence.all_shards.values()), None, SAMPLE, self.seed, context.store.storage.readable)
        right, seconds = [], []
        for number, candidate in enumerate(self.candidates):
            encoder = candidate.resolved(context.assets_path, self.device)
            made = encoded(context, encoder, rows, scratch=attempt.scratch / str(number), bar=attempt.bar)
            found = right_left_out(feature_matrix(made), rows)
            if found is None:
                raise DataError("too few train rows to compare encoders", where="encoder", hint="Name one encoder")
            right.append(found)
            seconds.append(float(np.median(made[SECONDS].to_numpy())))
        candidates = [
            {"name": each.name, "accuracy": float(mine.mean()), "milliseconds": 1000 * cost}
            for each, mine, cost in zip(self.candidates, right, seconds, strict=True)
        ]
        chosen = cheapest(right, seconds)
        write_json(attempt.folder / _FOUND, {"rows": len(rows), "candidates": candidates, "chosen": chosen})


def cheapest(right: list[NDArray[np.bool_]], seconds: list[float]) -> int:
    """The candidate with the least seconds whose accuracy is within one standard error of the best.

    `right` says for each which of the same rows it answers right, [N]; the error is that of their difference.
    """
    best_N = max(right, key=lambda mine: mine.mean()).astype(float)
    behind = [best_N - mine for mine in right]
    near = [number for number, gap_N in enumerate(behind) if gap_N.mean() <= gap_N.std() / np.sqrt(len(gap_N))]
    return min(near, key=lambda number: seconds[number])


class Encoding(Plan):
    """An encoder with its identity, and the kind of device that it runs on."""

    encoder: EncoderConfig
    identity: str
    device: str
    preview_seed: int | None = Field(None, exclude=True)  # of the rows that tell a person what the features are worth

    @classmethod
    def of(cls, encoder: EncoderConfig, context: Context) -> Self:
        """The encoder with its identity on this machine."""
        identity = encoder.identity(context.assets_path)
        return cls(encoder=encoder, identity=identity, device=context.cluster.device)

    def needs_cluster(self, sequence: SequenceArtefact, **reads: Any) -> bool:
        """Not for a few rows that come with their vectors."""
        return not self.encoder.vector_columns or not sequence.has_few_rows

    def write(self, attempt: Attempt, sequence: SequenceArtefact) -> None:
        """A file for every shard, with the same rows.

        DataError naming the row ids when the encoder cannot read a row, or gives a NaN.
        """
        context = attempt.context
        encoder = self.encoder.resolved(context.assets_path, self.device)  # here, once, for all actors
        storage, sources = context.store.storage, sequence.all_shards
        num_cut = encode_shards(context, encoder, sources, attempt.folder, scratch=attempt.scratch, bar=attempt.bar)
        tasks = {name: task_shards(attempt.folder, number, sources) for number, name in enumerate(sequence.names.tasks)}
        seed = self.preview_seed
        found = {} if seed is None else run_remotely(preview, tasks, seed, storage.readable)
        write_json(attempt.folder / FACTS, {"runtime": encoder.in_use, "preview": found, CUT: num_cut})

    def build(self, sequence: SequenceArtefact, context: Context, label: str) -> FeaturesArtefact:
        """The features of a sequence as part of the stage `label`."""
        recipe = Recipe(Features.stage, Features.version, self.section(), (sequence,))
        made = context.build(recipe, partial(self.write, sequence=sequence), label=label).as_a(FeaturesArtefact)
        _say_cut(made, context, "large.encoder")
        return made


class Features(Stage):
    """The rows of each task through the collaborator's encoder."""

    stage, version, reads, writes = "features", 3, ("sequence",), FeaturesArtefact

    encoder: EncoderConfig
    large: LargeConfig
    seed: int

    def check(self) -> None:
        """Raise ConfigError for a large model that reads other vectors than the encoder: a row has one."""
        backbone = self.large.backbone
        if backbone is not None and backbone.vector_columns not in ((), self.encoder.vector_columns):
            raise ConfigError(
                f"the large model reads the vectors {', '.join(backbone.vector_columns)}, which are not the encoder's",
                where="large.encoder",
                hint="Give both the same columns, or the large model an encoder of texts or pictures",
            )

    def plan(self, context: Context, sequence: SequenceArtefact) -> Encoding:
        """The encoder with the head that was fitted for it; of several candidates the one that is chosen."""
        encoder = sequence.with_head(self.encoder)
        if encoder.choices:
            compared = Comparison.made(encoder.choices, sequence, self.seed, context)
            for line in compared.lines():
                context.reporter.say(f"[dim]{escape(line)}[/dim]")
            encoder = encoder.choices[compared.found["chosen"]]
        return Encoding.of(encoder, context).model_copy(update={"preview_seed": self.seed})

    def publish(self, artefact: FeaturesArtefact, context: Context) -> None:
        """Say what the features are worth, before the large model is asked."""
        _say_cut(artefact, context, "encoder")
        for line in preview_lines(artefact.preview):
            context.reporter.say(f"[dim]{escape(line)}[/dim]")


def _say_cut(features: FeaturesArtefact, context: Context, section: str) -> None:
    if features.num_cut:
        context.reporter.say(
            f"[yellow]warning: {section}: of {plural(features.num_cut, 'text')} the end is not read: they have more"
            f" tokens than {section}.max_length, or than the model takes[/yellow]"
        )
