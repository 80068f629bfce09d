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
from kcm.tasks.sequence import SCHEMA, append_task, read_description, read_rows


def rows(split: str, **columns: list) -> pa.Table:
    """Rows of a split: one without content, but for the columns that are given."""
    count = len(columns["id"])
    values = {"text": [""] * count, "image": [b""] * count, "label": [0] * count, "group": [""] * count} | columns
    table = pa.table({name: pa.array(values[name], SCHEMA.field(name).type) for name in SCHEMA.names})
    return table.append_column("split", pa.array([split] * count, pa.string()))


@pytest.fixture
def sequence() -> TaskSequence:
    def task(name, labels, start):
        parts = [
            rows(
                split,
                id=[f"{name}-{split}-{i}" for i in range(3)],
                text=[f"Größe {start + i} of {split}" for i in range(3)],
                image=[b"", bytes([start, 0]), b""],
                label=[start, start + 1, -1],
                group=["d", "", ""],
            )
            for split in SPLITS
        ]
        return Task(name, labels, pa.concat_tables(parts))

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
        assert after.rows == before.rows
        assert {split: len(part) for split, part in after.splits.items()} == dict.fromkeys(SPLITS, 3)


def test_rows_come_split_by_split_in_their_order(sequence, tmp_path):
    table = sequence.tasks[1].rows
    assert table.column_names == ["id", "text", "image", "label", "group", "split"]
    assert table.column("id").to_pylist() == [f"second-{split}-{i}" for split in SPLITS for i in range(3)]
    assert table.column("split").to_pylist() == [split for split in SPLITS for _ in range(3)]
    sequence.save(tmp_path)
    assert TaskSequence.load(tmp_path).tasks[1].rows == table


def test_a_sequence_without_pictures_is_kept_without_their_column(sequence, tmp_path):
    table = pa.concat_tables([rows(split, id=[split], text=["a"]) for split in SPLITS])
    texts = replace(sequence, tasks=(Task("texts", ("a",), table),))
    texts.save(tmp_path)
    assert "image" not in pq.read_schema(tmp_path / "task-0000.parquet").names
    assert TaskSequence.load(tmp_path).tasks[0].rows == texts.tasks[0].rows


def test_vectors_survive_the_disk_and_splits_may_be_empty(sequence, tmp_path):
    table = rows("train", id=["0", "1"])
    column = pa.array([np.array([n, 0.5], dtype=np.float32) for n in range(2)], pa.list_(pa.float32(), 2))
    vectors = replace(sequence, tasks=(Task("vectors", ("a",), table.add_column(5, "vector", column)),))
    vectors.save(tmp_path)
    loaded = TaskSequence.load(tmp_path)
    assert loaded.tasks[0].rows == vectors.tasks[0].rows
    assert loaded.tasks[0].rows["vector"].type == pa.list_(pa.float32(), 2)
    assert loaded.tasks[0].rows["vector"].to_pylist() == [[0, 0.5], [1, 0.5]]


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
    assert grown.tasks[len(sequence.tasks)].rows.equals(sequence.tasks[0].rows)
    assert read_rows(tmp_path / "grown", 0).equals(sequence.tasks[0].rows)
    assert {path.name: path.read_bytes() for path in (tmp_path / "parent").iterdir()} == before

    append_task(tmp_path / "grown", tmp_path / "again", replace(task, name="most"), grown.label_names)
    assert read_description(tmp_path / "again")["grown"] == ["more", "most"]
    assert "grown" not in read_description(tmp_path / "parent")
