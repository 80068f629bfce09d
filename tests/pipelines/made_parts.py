"""Features and answers of one task in several shards, made by hand, and what is fetched of them."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

from kcm.cascade.outcome_rows import Split
from kcm.inputs.labels import OUT_OF_SCOPE
from kcm.inputs.vectors import list_column
from kcm.large import LargeAnswer
from kcm.large.base import Cost
from kcm.parquet import write_table
from kcm.tasks.shards import GROUP_ROWS, shard_file, write_shards
from pipelines.batch.outcome_table import OutcomePart, outcome_part, part_rows
from pipelines.store.artefact import ArtefactStore, Recipe, write_json
from pipelines.store.features import FACTS, SECONDS, FeaturesArtefact
from pipelines.store.files import Files, RangeFile
from pipelines.store.outcomes import Answers, OutcomesArtefact
from pipelines.store.sequence import Names

ANSWERS = [
    LargeAnswer(1, np.array([0.25, 0.75], dtype=np.float32), Cost(seconds=2.0)),
    LargeAnswer(0, None),
    LargeAnswer(None, None, error="answered 'x'", off_label=True),
    LargeAnswer(None, None, error="time-out"),
]
ROWS = pa.table({"id": ["a", "b", "c", "d"], "split": ["validate", "validate", "test", "test"]})

DIM = 32
SIZES = {"train": 12 * GROUP_ROWS, "validate": GROUP_ROWS, "certify": 400, "test": GROUP_ROWS}
SHARD = 2 * GROUP_ROWS  # rows of a shard here


class Known(FeaturesArtefact):
    """Features of a sequence whose names are known."""

    names: ClassVar[Names] = Names(("t",), ("no", "yes"), "neither")  # type: ignore[misc]


@dataclass(frozen=True)
class MadeFeatures(FeaturesArtefact):
    """Features of the first tasks, whose names are known."""

    num_tasks: int = 3

    @property
    def names(self) -> Names:
        return Names(tuple(f"task-{number}" for number in range(self.num_tasks)), ("a", "b", "c"), None)


def write_task(folder: Path, number: int) -> None:
    """Three Gaussian classes whose means move from task to task, and a large model that is mostly right."""
    rng = np.random.default_rng(number)
    count, splits = 331, ["train"] * 231 + ["test"] * 100
    labels = rng.integers(0, 3, count)
    means = rng.normal(size=(3, 16))
    features = (means[labels] + rng.normal(size=(count, 16))).astype(np.float32)
    large = np.full((count, 3), 0.1, dtype=np.float32)
    large[np.arange(count), labels] = 0.8
    ids = [f"row-{number}-{row}" for row in range(count)]
    places = folder / "features", folder / "outcomes"
    for place in places:
        place.mkdir(exist_ok=True)
    columns = {"id": ids, "split": splits, "label": labels, "features": list_column(features)}
    write_shards(places[0], number, [pa.table(columns)])
    write_json(places[0] / FACTS, {})
    answers = {"id": ids, "large_label": labels, "large_probabilities": list_column(large)}
    write_shards(places[1], number, [pa.table(answers)])


def logits(collaborator: Any, features_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return features_ND[:, :2].astype(np.float64), features_ND[:, 2:4].astype(np.float64)


def written(store: ArtefactStore) -> tuple[Known, OutcomesArtefact]:
    """Features and outcomes of one task in several shards; on a bucket this node has nothing of them."""
    count, rng = sum(SIZES.values()), np.random.default_rng(0)
    label_N = rng.integers(0, 2, count)
    label_N[-50:] = OUT_OF_SCOPE
    rows = pa.table(
        {
            "id": [f"row {number}" for number in range(count)],
            "split": [split for split, size in SIZES.items() for _ in range(size)],
            "label": label_N,
            "group": pa.nulls(count, pa.string()),
            "features": list_column(rng.normal(size=(count, DIM)).astype(np.float32)),
            SECONDS: rng.random(count),
        }
    )
    answers = Answers.of([LargeAnswer(int(label), None) for label in rng.integers(0, 3, count)], 2).table(rows)

    def write(folder: Path, table: pa.Table) -> None:
        for number, start in enumerate(range(0, count, SHARD)):
            part = table.slice(start, SHARD)
            write_table(part, shard_file(folder, 0, number), row_group_size=GROUP_ROWS, use_dictionary=False)

    def write_features(folder: Path, scratch: Path) -> None:
        write(folder, rows)

    features = store.build(Recipe("features", 1, {}), write_features)[0].as_a(Known)
    outcomes = store.build(Recipe("outcomes", 1, {}), lambda folder, scratch: write(folder, answers))[0]
    if store.storage.is_remote:
        shutil.rmtree(store.root)
    return features, outcomes.as_a(OutcomesArtefact)


def parts_here(
    collaborator: Any, features: FeaturesArtefact, outcomes: OutcomesArtefact, splits: Sequence[Split]
) -> Iterator[OutcomePart]:
    """The parts of an outcome table, made one by one in this process."""
    return (outcome_part(collaborator, part, features.names) for part in part_rows(features, outcomes, splits))


class Fetched:
    """What this node fetches of a bucket: whole files by name, and bytes of ranges."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shards, self.ranges = list[str](), 0
        get, readinto = Files.get, RangeFile.readinto

        def watched_get(files: Files, name: str, target: Path) -> str:
            self.shards += [name] if name.endswith(".parquet") else []
            return get(files, name, target)

        def watched_read(file: RangeFile, buffer: Any) -> int:
            self.ranges += (length := readinto(file, buffer))
            return length

        monkeypatch.setattr(Files, "get", watched_get)
        monkeypatch.setattr(RangeFile, "readinto", watched_read)
