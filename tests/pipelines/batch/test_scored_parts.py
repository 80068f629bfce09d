"""Parts of the outcome table that other processes read are those of one process, and only their rows are fetched."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kcm.cascade.gate import Gate
from kcm.cascade.policy import Decision, Policy
from kcm.cascade.table import SPLITS
from kcm.inputs.labels import OUT_OF_SCOPE
from kcm.large import LargeAnswer
from kcm.tasks.columns import list_column
from kcm.tasks.rowindex import RowIndex
from kcm.tasks.shards import GROUP_ROWS, ShardWriter, shard_file
from pipelines.batch import scored_parts as module
from pipelines.batch.scored_parts import scored_parts
from pipelines.store import outcome_table
from pipelines.store.artefact import ArtefactStore, Recipe
from pipelines.store.features import SECONDS, FeaturesArtefact
from pipelines.store.objects import ObjectFiles
from pipelines.store.outcome_table import ScoredTable, kept_parts, outcome_parts
from pipelines.store.outcomes import Answers, OutcomesArtefact
from pipelines.store.ranges import Ranges
from pipelines.store.sequence import Names

DIM = 32
SIZES = {"train": 12 * GROUP_ROWS, "validate": GROUP_ROWS, "certify": 100, "test": GROUP_ROWS}
SHARD = 2 * GROUP_ROWS  # rows of a shard here
GATE = Gate("entropy")


class Known(FeaturesArtefact):
    """Features of a sequence whose names are known."""

    names: ClassVar[Names] = Names(("t",), ("no", "yes"), "neither")  # type: ignore[misc]


def logits(collaborator: Any, features_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return features_ND[:, :2].astype(np.float64), features_ND[:, 2:4].astype(np.float64)


@pytest.fixture(autouse=True)
def no_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcome_table, "logits", logits)


def written(store: ArtefactStore, index: bool) -> tuple[Known, OutcomesArtefact]:
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
            with ShardWriter(folder, 0, table.schema, first_shard=number) as writer:
                writer.write(table.slice(start, SHARD))

    def write_features(folder: Path, scratch: Path) -> None:
        write(folder, rows)
        if index:
            shards = [shard_file(folder, 0, number) for number in range(-(-count // SHARD))]
            RowIndex.read(shards).save(shards[0])

    features = store.build(Recipe("features", 1, {}), write_features)[0].as_a(Known)
    outcomes = store.build(Recipe("outcomes", 1, {}), lambda folder, scratch: write(folder, answers))[0]
    if store.storage.is_remote:
        shutil.rmtree(store.root)
    return features, outcomes.as_a(OutcomesArtefact)


@pytest.mark.parametrize("index", [True, False], ids=["with an index", "as older versions wrote"])
def test_parts_are_those_of_one_process_in_their_order(place: str, index: bool) -> None:
    given: Any = (*written(ArtefactStore(place), index), SPLITS)
    collaborator: Any = None
    parts = list(scored_parts(collaborator, GATE, *given))
    expected = list(outcome_parts(collaborator, *given))
    assert [part.table.split[0] for part in parts] == ["validate", "certify", "test", "test"]
    assert [len(part.table) for part in parts] == [len(part.table) for part in expected]
    for part, other in zip(parts, expected, strict=True):
        assert part.table.id.tolist() == other.table.id.tolist()
        np.testing.assert_array_equal(part.table.label, other.table.label)
        np.testing.assert_array_equal(part.scores(GATE), other.scores(GATE))
        np.testing.assert_array_equal(part.seconds_N, other.seconds_N)
        assert len(part.features_ND) == 0


def test_parts_of_other_processes_whose_arrays_cannot_be_written_are_scored_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ray gives them: they lie in memory that all processes of a node share."""
    given: Any = (*written(ArtefactStore(tmp_path), index=True), SPLITS)

    def as_from_ray(function: Any, calls: Any, shared: Any) -> Iterator[Any]:
        for call in calls:
            buffers: list[pickle.PickleBuffer] = []
            sent = pickle.dumps(function(*shared, *call), protocol=5, buffer_callback=buffers.append)
            yield pickle.loads(sent, buffers=[bytes(buffer) for buffer in buffers])

    monkeypatch.setattr(module, "in_order", as_from_ray)
    collaborator: Any = None
    parts = list(scored_parts(collaborator, GATE, *given))
    assert not parts[0].scores(GATE).flags.writeable
    searched = np.linspace(0, 1, SIZES["validate"])
    kept = kept_parts(parts, tmp_path / "outcomes.parquet")
    table = ScoredTable.of(
        kept, GATE, searched, Policy(gate="entropy", decision=Decision(decision="threshold", threshold=0.5))
    )
    np.testing.assert_array_equal(table.rows("validate").score, searched)
    assert pq.read_metadata(tmp_path / "outcomes.parquet").num_rows == sum(SIZES.values()) - SIZES["train"]


def test_only_the_row_groups_of_a_split_are_fetched(node_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ArtefactStore(node_bucket)
    features, outcomes = written(store, index=True)
    sizes = {stat.name: stat.size for stat in store.storage.files.list("artefacts") if stat.name.endswith(".parquet")}
    fetched, read, get, readinto = list[str](), list[int](), ObjectFiles.get, Ranges.readinto

    def watched_get(files: ObjectFiles, name: str, target: Path) -> None:
        fetched.append(name)
        get(files, name, target)

    def watched_read(file: Ranges, buffer: Any) -> int:
        read.append(readinto(file, buffer))
        return read[-1]

    monkeypatch.setattr(ObjectFiles, "get", watched_get)
    monkeypatch.setattr(Ranges, "readinto", watched_read)
    collaborator: Any = None
    (part,) = scored_parts(collaborator, GATE, features, outcomes, ["validate"])
    assert len(part.table) == SIZES["validate"]
    assert [name for name in fetched if name.endswith(".parquet")] == []
    assert sum(read) < sum(sizes.values()) / 4
