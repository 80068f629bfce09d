"""The data of a study: where its rows come from, and the streams that its seeds draw from them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from kcm.encoders import Encoder, EncoderConfig
from kcm.inputs.content import TEXT, Content, Part, contents
from kcm.study.features import cached_features
from kcm.study.stream import Stream, make_stream
from kcm.tasks import TasksConfig, TaskSequence, build_sequence
from kcm.tasks.preparation.checks import SplitError
from kcm.tasks.sources import Source, TableShard

_MAX_SALTS = 8  # each of the seeds may ask for another one


@dataclass(frozen=True)
class StudyData:
    """Rows read once; `sequences` holds the task sequence of every seed, all with the same splits.

    `num_features` is the length of rows that are numbers. A seed draws the order of tasks and, where `num_tasks` groups
    them, the classes of each; and a long tail's order.
    """

    sequences: tuple[TaskSequence, ...]
    num_features: int | None = None

    def streams(
        self,
        encoder: EncoderConfig,
        assets_dir: Path,
        folder: Path,
        score_on: Literal["validate", "test"] = "test",
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Stream]:
        """The stream of every seed; features come from `folder`, or are computed and kept there."""
        rows = [
            content
            for sequence in self.sequences
            for task in sequence.tasks
            for split in ("train", score_on)
            for content in contents(task.splits[split]["text"], task.splits[split]["image"])
        ]
        identity, load = self._encoder(encoder, assets_dir)
        features = cached_features(rows, load, identity, folder, progress)
        return [make_stream(sequence, features, identity, score_on) for sequence in self.sequences]

    def described(self) -> dict[str, Any]:
        """Numbers of rows, classes and tasks, and the rows left out, for the result."""
        first = self.sequences[0]
        rows = {split: sum(task.splits[split].num_rows for task in first.tasks) for split in first.tasks[0].splits}
        return {
            "name": first.name,
            "scenario": first.scenario,
            "num_tasks": len(first.tasks),
            "num_classes": len(first.label_names),
            "rows": rows,
            "long_tail": list(first.long_tail),
            "rows_left_out": [{"id": row.id, "reason": row.reason} for row in first.bad_rows],
        }

    def _encoder(self, config: EncoderConfig, assets_dir: Path) -> tuple[str, Callable[[], Encoder]]:
        if self.num_features is not None:
            return NumbersEncoder.identity, partial(NumbersEncoder, self.num_features)
        return config.identity(assets_dir), lambda: config.build(assets_dir)


def read_data(
    config: TasksConfig,
    assets_dir: Path,
    seeds: Sequence[int],
    feature_columns: Sequence[str] = (),
    reads: Collection[Part] = TEXT,
) -> StudyData:
    """Read the rows and build the sequence of every seed, so that every fault of the data shows before any work.

    `feature_columns` are names, or patterns such as pixel_*, of columns that hold the features as numbers; without
    them `reads` are the parts of a row that the encoder reads. Splits are the same for all seeds: where a seed's tasks
    lack something under one salt, another one that gives it is taken. Raises DataError, AssetError or ConfigError.
    """
    num_features: int | None = None
    if feature_columns:
        source, num_features = _numeric_source(config, assets_dir, feature_columns)
        reads = TEXT  # the numbers, written as one
    else:
        source = config.source.build(assets_dir)
    source = source.in_memory  # read once, for all seeds
    build = partial(build_sequence, assets_dir=assets_dir, seed=0, reads=reads, source=source)
    return StudyData(_sequences(config, seeds, build, _MAX_SALTS), num_features)


def _sequences(
    config: TasksConfig, seeds: Sequence[int], build: Callable[[TasksConfig], TaskSequence], most_salts: int
) -> tuple[TaskSequence, ...]:
    """The sequence of every seed, under the first of up to `most_salts` salts that serves them all."""
    try:
        return tuple(build(config.model_copy(update={"order": "shuffled", "order_seed": seed})) for seed in seeds)
    except SplitError as error:
        if error.salt is None or most_salts == 1:
            raise
        return _sequences(config.model_copy(update={"salt": error.salt}), seeds, build, most_salts - 1)


def _numeric_source(config: TasksConfig, assets_dir: Path, patterns: Sequence[str]) -> tuple[Source, int]:
    """The rows with their vectors written as texts, and the length of a vector."""
    source = config.source.model_copy(update={"text_column": None}).build(assets_dir, patterns)
    tables = [(shard.where, table) for shard in source.shards for table in shard.read()]
    names = tables[0][1].schema.names
    written = [
        TableShard(where, table.set_column(names.index("text"), "text", numbers_text(table["vector"])).drop("vector"))
        for where, table in tables
    ]
    return replace(source, shards=tuple(written)), tables[0][1]["vector"].type.list_size


class NumbersEncoder:
    """Reads what `numbers_text` wrote, so that numbers go the way of texts; `dim` is their number."""

    identity = "numbers"
    reads: frozenset[Part] = TEXT

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def read(self, content: Content) -> Content:
        """The content itself: there is nothing to decode."""
        return content

    def encode(self, inputs: Sequence[Content]) -> np.ndarray:
        """Float32 [N, dim], as they are: no scaling."""
        return np.array([content.text.split() for content in inputs], dtype=np.float32).reshape(-1, self.dim)


def numbers_text(vectors: pa.ChunkedArray) -> pa.Array:
    """The numbers of each vector, separated by blanks, as short as they can be read back; "" for a missing vector."""
    return pa.array([" ".join(str(np.float32(number)) for number in row or ()) for row in vectors.to_pylist()])
