"""Stage `features`: every row through the frozen encoder, once.

Of several encoders it is the cheapest that is as good as the best, on a sample of the rows. What the features are worth
is said before anything is trained or paid: ridge regression on some train rows, each left out. Labels that were mixed
up, or an encoder that does not see what they mean, show here. No row that tests or certifies is looked at.

Shapes: N rows of the sample, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeAlias, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field
from rich.markup import escape

from kcm.closed_form.left_out import ridge_left_out
from kcm.encoders import EncoderConfig
from kcm.errors import ConfigError, DataError
from kcm.large import LargeConfig
from kcm.metrics.intervals import Units
from kcm.parquet import open_file, sound
from kcm.report.formats import plural
from kcm.tasks.hashing import draws
from kcm.tasks.shards import task_shards
from pipelines.batch.encoding import encode_shards, encoded
from pipelines.batch.mapping import run_remotely
from pipelines.context import Attempt, Context
from pipelines.stages.stage import Plan, Stage
from pipelines.store.artefact import Artefact, Recipe, write_json
from pipelines.store.features import CUT, FACTS, SECONDS, FeaturesArtefact, feature_matrix
from pipelines.store.sequence import SequenceArtefact

Preview: TypeAlias = dict[str, tuple[int, int]]  # by task: train rows left out, and those that are answered right

SAMPLE = 1000  # rows that are looked at, of all tasks: an accuracy of 90% is known to a point
_READ = 131_072  # rows that are read for them; of more, row groups at equal distances


def preview(
    shards: Mapping[str, Sequence[Path]], seed: int, readable: Callable[[Path], Path | BinaryIO] = Path
) -> Preview:
    """How many train rows of each task were left out, and how many of them answered right.

    `shards` are the files of each task, `readable` what they are read from. Empty where there is nothing to compute it
    from.
    """
    columns, count = ("id", "split", "label", "group", "features"), math.ceil(SAMPLE / len(shards))
    parts = [sampled(paths, columns, count, seed, readable) for paths in shards.values()]
    rows = pa.concat_tables(parts)
    right_N = right_left_out(feature_matrix(rows), rows)
    if right_N is None:
        return {}
    by_task = np.split(right_N, np.cumsum([len(part) for part in parts])[:-1])
    return {task: (len(mine), int(mine.sum())) for task, mine in zip(shards, by_task, strict=True) if len(mine)}


def preview_lines(found: Preview, shown: int = 8) -> Iterator[str]:
    """The same in lines for a person."""
    if not found:
        return
    num_rows, num_right = (sum(counts) for counts in zip(*found.values(), strict=True))
    yield (
        f"nothing is trained yet: ridge regression on the features answers {num_right / num_rows:.1%} of"
        f" {num_rows:,} train rows right when they are left out"
    )
    if len(found) > 1:
        parts = [f"{task} {right / rows:.1%}" for task, (rows, right) in list(found.items())[:shown]]
        more = f" and {len(found) - shown} more tasks" if len(found) > shown else ""
        yield f"  {', '.join(parts)}{more}"


def sampled(
    shards: Sequence[Path],
    columns: Sequence[str] | None,
    count: int,
    seed: int,
    readable: Callable[[Path], Path | BinaryIO],
) -> pa.Table:
    """Up to `count` labelled train rows, those whose ids draw the lowest numbers; all columns for None."""
    files = {path: open_file(readable(path), pre_buffer=True) for path in shards}
    step = math.ceil(sum(file.metadata.num_rows for file in files.values()) / _READ)
    rows: list[pa.Table] = []
    for path, file in files.items():
        for group in range(0, file.num_row_groups, step):
            with sound(path):
                read = file.read_row_group(group, columns=columns)
            rows.append(read.filter(pc.and_(pc.equal(read["split"], "train"), pc.greater_equal(read["label"], 0))))
            sample = pa.concat_tables(rows, promote_options="default")  # a task without pictures lacks their column
            drawn_N = draws(seed, "preview", sample["id"].to_pylist())
            rows = [sample.take(np.sort(np.argsort(drawn_N, kind="stable")[:count]))]
    return rows[0]


def right_left_out(features_ND: NDArray[np.float32], rows: pa.Table) -> NDArray[np.bool_] | None:
    """Which rows ridge regression answers right when their unit is left out, [N].

    None where there are not two labels and two units.
    """
    labels, label_N = np.unique(rows["label"].to_numpy(), return_inverse=True)
    groups = rows["group"].to_pylist() if "group" in rows.column_names else [None] * len(rows)
    names = zip(groups, rows["id"].to_pylist(), strict=True)
    units = Units(np.array([group or row for group, row in names], dtype=object), len(rows))
    if len(labels) < 2 or units.count < 2:
        return None
    found = ridge_left_out(features_ND.astype(np.float64).__getitem__, np.eye(len(labels))[label_N], units)
    return np.asarray(found.left_out.argmax(1) == label_N)


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
