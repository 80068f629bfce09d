"""A task sequence survives the disk, and what is damaged there is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kcm.errors import ArtefactError
from kcm.tasks import SPLITS, BadRow, Task, TaskSequence
from kcm.tasks.sequence import append_task, dataset_of, read_description, read_rows


@pytest.fixture
def sequence() -> TaskSequence:
    def task(name, labels, start):
        splits = {
            split: dataset_of(
                {
                    "id": [f"{name}-{split}-{i}" for i in range(3)],
                    "text": [f"Größe {start + i} of {split}" for i in range(3)],
                    "image": [b"", bytes([start, 0]), b""],
                    "label": [start, start + 1, -1],
                    "group": ["d", "", ""],
                }
            )
            for split in SPLITS
        }
        return Task(name, labels, splits)

    return TaskSequence(
        name="tiny",
        scenario="class_incremental",
        label_names=("a", "b", "c", "d"),
        tasks=(task("first/one", ("a", "b"), 0), task("second", ("c", "d"), 2)),
        order="shuffled",
        seed=3,
        bad_rows=(BadRow("x", "empty text"),),
        long_tail=("d", "c", "b", "a"),
        none_label="oos",
    )


def test_a_sequence_survives_the_disk(sequence, tmp_path):
    sequence.save(tmp_path / "sequence")
    loaded = TaskSequence.load(tmp_path / "sequence")
    for field in ("name", "scenario", "label_names", "order", "seed", "bad_rows", "long_tail", "none_label"):
        assert getattr(loaded, field) == getattr(sequence, field)
    assert [(task.name, task.label_names) for task in loaded.tasks] == [
        ("first/one", ("a", "b")),
        ("second", ("c", "d")),
    ]
    for before, after in zip(sequence.tasks, loaded.tasks, strict=True):
        assert {split: after.splits[split].to_dict() for split in SPLITS} == {
            split: before.splits[split].to_dict() for split in SPLITS
        }


def test_rows_come_split_by_split_in_their_order(sequence, tmp_path):
    table = sequence.rows(1)
    assert table.column_names == ["id", "text", "image", "label", "group", "split"]
    assert table.column("id").to_pylist() == [f"second-{split}-{i}" for split in SPLITS for i in range(3)]
    assert table.column("split").to_pylist() == [split for split in SPLITS for _ in range(3)]
    sequence.save(tmp_path)
    assert TaskSequence.load(tmp_path).rows(1) == table


def test_a_sequence_without_pictures_is_kept_without_their_column(sequence, tmp_path):
    splits = {
        split: dataset_of({"id": [split], "text": ["a"], "image": [b""], "label": [0], "group": [""]})
        for split in SPLITS
    }
    texts = replace(sequence, tasks=(Task("texts", ("a",), splits),))
    texts.save(tmp_path)
    assert "image" not in pq.read_schema(tmp_path / "task-0000.parquet").names
    assert TaskSequence.load(tmp_path).rows(0) == texts.rows(0)


def test_vectors_survive_the_disk_and_a_split_may_be_empty(sequence, tmp_path):
    def rows(count):
        columns = {"id": [f"{n}" for n in range(count)], "text": [""] * count, "image": [b""] * count}
        vectors = [np.array([n, 0.5], dtype=np.float32) for n in range(count)]
        return dataset_of(columns | {"label": [0] * count, "group": [""] * count, "vector": vectors})

    splits = {split: rows(count) for split, count in zip(SPLITS, (0, 2, 1, 1), strict=True)}
    vectors = replace(sequence, tasks=(Task("vectors", ("a",), splits),))
    vectors.save(tmp_path)
    loaded = TaskSequence.load(tmp_path)
    assert loaded.rows(0) == vectors.rows(0)
    assert loaded.rows(0)["vector"].type == pa.list_(pa.float32(), 2)
    assert loaded.rows(0)["vector"].to_pylist() == [[0, 0.5], [1, 0.5], [0, 0.5], [0, 0.5]]


def test_two_saves_are_the_same_bytes(sequence, tmp_path):
    sequence.save(tmp_path / "a")
    sequence.save(tmp_path / "b")
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["bad_rows.csv", "sequence.json", "task-0000.parquet", "task-0001.parquet"]
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)


def test_a_missing_or_damaged_sequence_is_refused(sequence, tmp_path):
    with pytest.raises(ArtefactError, match="not a task sequence"):
        TaskSequence.load(tmp_path / "gone")
    sequence.save(tmp_path)
    (tmp_path / "task-0001.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(ArtefactError, match=str(tmp_path)):
        TaskSequence.load(tmp_path)
    sequence.save(tmp_path)
    description = json.loads((tmp_path / "sequence.json").read_text())
    del description["tasks"]
    (tmp_path / "sequence.json").write_text(json.dumps(description))
    with pytest.raises(ArtefactError):
        TaskSequence.load(tmp_path)


def test_a_task_is_appended_and_what_was_there_stays(sequence, tmp_path):
    sequence.save(tmp_path / "parent")
    before = {path.name: path.read_bytes() for path in (tmp_path / "parent").iterdir()}
    task = replace(sequence.tasks[0], name="more", label_names=("newest",))
    for name in ("grown", "again"):
        shutil.copytree(tmp_path / "parent", tmp_path / name)
    append_task(tmp_path / "parent", tmp_path / "grown", task, [*sequence.label_names, "newest"])
    grown = TaskSequence.load(tmp_path / "grown")
    assert [each.name for each in grown.tasks] == [*(each.name for each in sequence.tasks), "more"]
    assert grown.label_names == (*sequence.label_names, "newest")
    assert grown.rows(len(sequence.tasks)).equals(sequence.rows(0))
    assert read_rows(tmp_path / "grown", 0).equals(sequence.rows(0))
    assert {path.name: path.read_bytes() for path in (tmp_path / "parent").iterdir()} == before

    append_task(tmp_path / "grown", tmp_path / "again", replace(task, name="most"), grown.label_names)
    assert read_description(tmp_path / "again")["grown"] == ["more", "most"]
    assert "grown" not in read_description(tmp_path / "parent")
