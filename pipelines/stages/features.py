"""Stage `features`: every row through the frozen encoder, once; words beside the features of texts, if they help.

Words are fitted to train rows of the first task, by one process. Before anything is trained, ridge regression on some
train rows, each left out, shows what the features are worth: labels that were mixed up, or an encoder that does not see
what they mean. No test or certify row is read.

Shapes: N rows, D features of the embedding, K topics of words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field
from rich.markup import escape

from kcm.closed_form.left_out import ridge_left_out
from kcm.encoders import EncoderConfig
from kcm.encoders.precomputed import vector_columns
from kcm.encoders.runtime import resolved, runtime_of
from kcm.encoders.text_settings import fits_words
from kcm.encoders.words import Words, fit_words, useful_scale
from kcm.errors import ConfigError
from kcm.inputs.vectors import list_column
from kcm.large import LargeConfig
from kcm.metrics.intervals import Units
from kcm.parquet import open_file, sound
from kcm.report.formats import plural
from kcm.tasks.shards import task_shards
from kcm.tasks.splits import draws
from pipelines.batch.encoding import TEXT, encode_shards
from pipelines.batch.mapping import run_remotely
from pipelines.batch.shards import map_shards
from pipelines.batch.units import Counts, RowFunction
from pipelines.context import Attempt, Context
from pipelines.stages.stage import Plan, Stage
from pipelines.store.artefact import Recipe, write_json
from pipelines.store.features import CUT, FACTS, IDENTITY, WORDS, FeaturesArtefact, feature_matrix
from pipelines.store.sequence import SequenceArtefact, unit_names

Preview: TypeAlias = dict[str, tuple[int, int]]  # by task: train rows left out, and those that are answered right
SAMPLE = 1000  # rows that are used, over all tasks: an accuracy of 90% is known to a point
_READ = 16_384  # rows that are read for them, by the driver; of more, row groups at equal distances
_FITTED_ROWS, _CHOOSING_ROWS = 8192, 1000  # most train rows that words are fitted to, and that choose their scale
_SEED = 0  # of the draw of these rows: not a run's, since a row's features are the same in every run
_COLUMNS = ("id", "split", "label", "group", "features", TEXT)


class Encoding(Plan):
    """An encoder with its identity, and the kind of device that it runs on."""

    encoder: EncoderConfig
    identity: str
    device: str
    words: bool = Field(False, description="Whether words are fitted beside the features of texts.")
    preview_seed: int | None = Field(None, exclude=True)  # of the rows that tell a person what the features are worth

    @classmethod
    def of(cls, encoder: EncoderConfig, context: Context, *, words: bool = False) -> Self:
        """The encoder with its identity on this machine."""
        identity = encoder.identity(context.assets_path)
        return cls(encoder=encoder, identity=identity, device=context.cluster.device, words=words)

    def write(self, attempt: Attempt, sequence: SequenceArtefact) -> None:
        """A file for every shard, with the same rows.

        DataError naming the row ids when the encoder cannot read a row, or gives a NaN.
        """
        context = attempt.context
        encoder = resolved(self.encoder, context.assets_path, self.device)  # here, once, for all actors
        storage, sources = context.store.storage, sequence.all_shards
        folder = attempt.scratch / "embedded" if self.words else attempt.folder
        num_cut = encode_shards(attempt, encoder, sources, folder, attempt.scratch, with_texts=self.words)
        words: dict[str, Any] = {}
        if self.words and (num_words := add_words(attempt, folder, list(sources))):
            identity = encoder.aligned(attempt.folder / WORDS).identity(context.assets_path)
            words = {WORDS: num_words, IDENTITY: identity}
        tasks = {name: task_shards(attempt.folder, number, sources) for number, name in enumerate(sequence.names.tasks)}
        seed = self.preview_seed
        counts = {} if seed is None else run_remotely(preview, tasks, seed, storage.readable)
        write_json(attempt.folder / FACTS, {"runtime": runtime_of(encoder), "preview": counts, CUT: num_cut} | words)

    def build(self, sequence: SequenceArtefact, context: Context, label: str) -> FeaturesArtefact:
        """The features of a sequence as part of the stage `label`."""
        recipe = Recipe(Features.stage, Features.version, self.section(), (sequence,))
        write, starts = partial(self.write, sequence=sequence), partial(self.starts_cluster, context, sequence=sequence)
        features = context.build(recipe, write, label=label, starts_cluster=starts).as_a(FeaturesArtefact)
        _say_cut(features, context, "large.encoder")
        return features


class Features(Stage):
    """The rows of each task through the collaborator's encoder."""

    stage, version, reads, writes = "features", 4, ("sequence",), FeaturesArtefact

    encoder: EncoderConfig
    large: LargeConfig
    seed: int

    def check(self) -> None:
        """Raise ConfigError for a large model that reads other vectors than the encoder: a row has one."""
        columns = vector_columns(self.large.backbone) if self.large.backbone else ()
        if columns not in ((), vector_columns(self.encoder)):
            raise ConfigError(
                f"the large model reads the vectors {', '.join(columns)}, which are not the encoder's",
                where="large.encoder",
                hint="Give both the same columns, or the large model an encoder of texts or pictures",
            )

    def plan(self, context: Context, sequence: SequenceArtefact) -> Encoding:
        """The encoder with the head that was fitted for it."""
        encoder = sequence.with_head(self.encoder)
        plan = Encoding.of(encoder, context, words=fits_words(encoder))
        return plan.model_copy(update={"preview_seed": self.seed})

    def publish(self, artefact: FeaturesArtefact, context: Context) -> None:
        """Say what the features are worth, before the large model is asked."""
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


def add_words(attempt: Attempt, embedded: Path, names: Sequence[str]) -> int:
    """Write the shards of `embedded` to the attempt's folder, with topics of words if they help; the number of topics.

    The shards have a column of texts, which is dropped. Helpful words are saved in the folder `WORDS`.
    """
    readable, sources = attempt.context.store.storage.readable, {name: embedded / name for name in names}
    words: Words | None = run_remotely(_useful_words, task_shards(embedded, 0, names), readable)
    map_shards(attempt, sources, partial(_adder, words), attempt.folder, attempt.scratch / WORDS)
    if words is None:
        return 0
    (attempt.folder / WORDS).mkdir()
    words.save(attempt.folder / WORDS)
    return words.num_topics


def _useful_words(shards: Sequence[Path], readable: partial[Path | BinaryIO]) -> Words | None:
    """The words of train rows in the shards of the first task, at the scale that helps most; None if none does."""
    rows = sampled(shards, _COLUMNS, _FITTED_ROWS, _SEED, readable)
    words = fit_words(rows[TEXT].to_pylist()) if len(rows) else None
    if words is None:
        return None
    rows = rows.take(np.argsort(draws(_SEED, "words", rows["id"].to_pylist()), kind="stable")[:_CHOOSING_ROWS])
    labels, label_N = np.unique(rows["label"].to_numpy(), return_inverse=True)
    units = Units(np.array(unit_names(rows), dtype=object), len(rows))
    if len(labels) < 2 or units.count < 2:
        return None
    scale = useful_scale(feature_matrix(rows), words.encode(rows[TEXT].to_pylist()), label_N, units)
    return words.scaled(scale) if scale else None


def _adder(words: Words | None) -> RowFunction:
    """A function that replaces the texts of rows by their topics, behind their features."""

    def add(rows: pa.Table) -> tuple[pa.Table, Counts]:
        if words is None:
            return rows.drop_columns([TEXT]), {}
        topics_NK = words.encode(rows[TEXT].to_pylist())
        features = list_column(np.concatenate([feature_matrix(rows), topics_NK], 1))
        place = rows.column_names.index("features")
        return rows.set_column(place, "features", features).drop_columns([TEXT]), {}

    return add


def preview(
    shards: Mapping[str, Sequence[Path]], seed: int, readable: Callable[[Path], Path | BinaryIO] = Path
) -> Preview:
    """For each task, the number of left-out train rows and of right answers among them.

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
    return {task: (len(right), int(right.sum())) for task, right in zip(shards, by_task, strict=True) if len(right)}


def preview_lines(by_task: Preview, shown: int = 8) -> Iterator[str]:
    """The same in lines for a person."""
    if not by_task:
        return
    num_rows, num_right = (sum(counts) for counts in zip(*by_task.values(), strict=True))
    yield (
        f"before training: ridge regression on the features is right on {num_right / num_rows:.1%} of"
        f" {num_rows:,} train rows, each left out in turn"
    )
    if len(by_task) > 1:
        parts = [f"{task} {right / rows:.1%}" for task, (rows, right) in list(by_task.items())[:shown]]
        more = f" and {len(by_task) - shown} more tasks" if len(by_task) > shown else ""
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

    None with fewer than two labels or two units.
    """
    labels, label_N = np.unique(rows["label"].to_numpy(), return_inverse=True)
    units = Units(np.array(unit_names(rows), dtype=object), len(rows))
    if len(labels) < 2 or units.count < 2:
        return None
    ridge = ridge_left_out(features_ND.astype(np.float64).__getitem__, np.eye(len(labels))[label_N], units)
    return np.asarray(ridge.left_out.argmax(1) == label_N)
