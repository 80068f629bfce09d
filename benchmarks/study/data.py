"""The data of a study: its rows, their features (encoded once, kept on disk), and the stream that each seed draws."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.sequences import TaskSequence, build_sequence
from kcm.encoders import Encoder, EncoderConfig
from kcm.errors import DataError
from kcm.inputs.content import TEXT, Content, Part, contents
from kcm.learners.base import Batch
from kcm.learners.training.stream import TensorRows
from kcm.tasks import Split, TasksConfig
from kcm.tasks.preparation.checks import SplitError
from kcm.tasks.sources import Source, TableShard


@dataclass(frozen=True)
class Stream:
    """Tasks with the splits `train` and `test`, in the order in which they are learned.

    Where the task of a row is known when it is answered (`task_known`), only labels of that task can be the answer.
    `fingerprint` names the content: rows, splits, order and features.
    """

    tasks: Sequence[TensorRows]
    num_labels: int
    in_features: int
    fingerprint: str
    task_known: bool = False

    @property
    def train_counts(self) -> np.ndarray:
        """Train rows of every class, int [C]."""
        counts_C = np.zeros(self.num_labels, dtype=np.int64)
        for task in self.tasks:
            for label, count in task.label_counts("train").items():
                counts_C[label] += count
        return counts_C


_SPLITS: tuple[Split, ...] = ("train", "test")


def make_stream(sequence: TaskSequence, features: Mapping[Content, np.ndarray], features_identity: str) -> Stream:
    """The stream of a sequence whose rows have `features`, float32 [D] by content."""
    digest = hashlib.sha256(f"{features_identity}\0{sequence.scenario}\0{sequence.label_names}".encode())
    tasks = []
    for task in sequence.tasks:
        splits = {}
        for split in _SPLITS:
            data = task.splits[split]
            ids, labels = data["id"].to_pylist(), data["label"].to_pylist()
            rows = contents(data["text"].to_pylist(), data["image"].to_pylist())
            keys = [content.key for content in rows]
            digest.update(f"{task.name}\0{split}\0{ids}\0{keys}\0{labels}\n".encode())
            splits[split] = ids, _batch([features[content] for content in rows], labels)
        tasks.append(TensorRows(task.name, splits))
    in_features = len(next(iter(features.values())))
    task_known = sequence.scenario == "task_incremental"
    return Stream(tasks, len(sequence.label_names), in_features, digest.hexdigest(), task_known)


def _batch(vectors: Sequence[np.ndarray], labels: Sequence[int]) -> Batch:
    no_large = torch.full((len(labels), 1), torch.nan)
    return Batch(torch.from_numpy(np.stack(vectors)), torch.tensor(labels), no_large, torch.ones(len(labels)))


_CHUNK = 512  # rows per read


def cached_features(
    rows: Iterable[Content], encoder: Callable[[], Encoder], identity: str, folder: Path
) -> dict[Content, np.ndarray]:
    """Float32 features [D] by content, each encoded once; `encoder` loads the model only if needed.

    `identity` is the encoder's. Raises DataError, naming it, when the encoder gives a NaN.
    """
    by_key = {content.key: content for content in rows}
    keys = sorted(by_key)
    unique = [by_key[key] for key in keys]
    digest = hashlib.sha256("\0".join([identity, *keys]).encode()).hexdigest()[:32]
    path = folder / f"features-{digest}.npy"
    if not path.exists():
        vectors_ND = _encode(unique, encoder())
        folder.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}.npy")
        np.save(draft, vectors_ND)
        draft.replace(path)  # whole or not at all
    return dict(zip(unique, np.load(path), strict=True))


def _encode(rows: list[Content], encoder: Encoder) -> np.ndarray:
    # Encoders batch texts of like length, so let every chunk have texts of like length.
    order = np.argsort([content.size for content in rows], kind="stable")
    vectors_ND = np.empty((len(rows), encoder.dim), dtype=np.float32)
    for start in range(0, len(rows), _CHUNK):
        index = order[start : start + _CHUNK]
        vectors_ND[index] = encoder.encode([rows[i] for i in index])
    if len(bad_rows := np.flatnonzero(~np.isfinite(vectors_ND).all(axis=1))):
        raise DataError(f"the encoder gave NaN for {len(bad_rows)} rows, such as {rows[bad_rows[0]].key[:60]!r}")
    return vectors_ND


_MAX_SALTS = 64


@dataclass(frozen=True)
class StudyData:
    """Rows read once; `sequences` holds the task sequence of every seed, all with the same splits.

    `num_features` is the length of rows that are numbers. A seed draws the order of tasks and, where `num_tasks` groups
    them, the classes of each; and a long tail's order.
    """

    sequences: tuple[TaskSequence, ...]
    num_features: int | None = None

    def streams(self, encoder: EncoderConfig, assets_dir: Path, folder: Path) -> list[Stream]:
        """The stream of every seed; features come from `folder`, or are computed and kept there."""
        rows = [
            content
            for sequence in self.sequences
            for task in sequence.tasks
            for split in _SPLITS
            for rows in (task.splits[split],)
            for content in contents(rows["text"].to_pylist(), rows["image"].to_pylist())
        ]
        if self.num_features is None:
            identity, load = encoder.identity(assets_dir), partial(encoder.build, assets_dir)
        else:
            identity, load = NumbersEncoder.identity, partial(NumbersEncoder, self.num_features)
        features = cached_features(rows, load, identity, folder)
        return [make_stream(sequence, features, identity) for sequence in self.sequences]

    def described(self) -> dict[str, Any]:
        """Numbers of rows, classes and tasks, and the rows left out, for the result."""
        first = self.sequences[0]
        rows = Counter(split for task in first.tasks for split in task.rows["split"].to_pylist())
        return {
            "name": first.name,
            "scenario": first.scenario,
            "num_tasks": len(first.tasks),
            "num_classes": len(first.label_names),
            "rows": dict(rows),
            "long_tail": list(first.long_tail),
            "rows_left_out": [{"id": row.id, "reason": row.reason} for row in first.bad_rows],
        }


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
    tables = tuple(TableShard(shard.where, table) for shard in source.shards for table in shard.read())
    source = replace(source, shards=tables)  # read once, for all seeds
    build = partial(build_sequence, assets_dir=assets_dir, seed=0, reads=reads, source=source)
    return StudyData(_sequences(config, seeds, build), num_features)


def _sequences(
    config: TasksConfig, seeds: Sequence[int], build: Callable[[TasksConfig], TaskSequence]
) -> tuple[TaskSequence, ...]:
    """The sequence of every seed, under the first salt that serves them all."""
    configs = [config.model_copy(update={"order": "shuffled", "order_seed": seed}) for seed in seeds]
    for salt in (config.salt, *range(_MAX_SALTS)):
        with suppress(SplitError):
            return tuple(build(config.model_copy(update={"salt": salt})) for config in configs)
    return tuple(map(build, configs))  # raises the error


def _numeric_source(config: TasksConfig, assets_dir: Path, patterns: Sequence[str]) -> tuple[Source, int]:
    """The rows with their vectors written as texts, and the length of a vector."""
    source = config.source.model_copy(update={"text_column": None}).build(assets_dir, patterns)
    tables = [(shard.where, table) for shard in source.shards for table in shard.read()]
    names = tables[0][1].schema.names
    columns = [
        TableShard(where, table.set_column(names.index("text"), "text", numbers_text(table["vector"])).drop("vector"))
        for where, table in tables
    ]
    return replace(source, shards=tuple(columns)), tables[0][1]["vector"].type.list_size


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
