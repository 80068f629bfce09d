"""Given splits are honoured, streams differ by seed in order alone, and numbers pass as they are."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from kcm.config import parse_config
from kcm.encoders import TextEncoderConfig
from kcm.errors import DataError
from kcm.inputs.content import contents
from kcm.study import StudyData, read_data
from kcm.study.data import NumbersEncoder, numbers_text
from kcm.study.features import cached_features
from kcm.tasks import TasksConfig

Read = Callable[..., StudyData]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads rows of (x, y, label) or (x, y, label, split) as a study of two seeds."""

    def read_rows(rows: Sequence[tuple], *, seeds: Sequence[int] = (0, 1), **tasks: object) -> StudyData:
        path = tmp_path / "table.csv"
        columns = ("x", "y", "label", "split")[: len(rows[0])]
        with path.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([columns, *rows])
        values = {"source": {"kind": "files", "path": str(path)}, "scenario": "class_incremental", "num_tasks": 2}
        return read_data(parse_config(TasksConfig, values | tasks), tmp_path, seeds, ["x", "y"])

    return read_rows


def rows(count: int, split: str, start: int = 0) -> list[tuple]:
    return [(start + i, 0.5, f"class-{i % 4}", split) for i in range(count)]


def ids(data: StudyData, split: str, sequence: int = 0) -> set[str]:
    return {row for task in data.sequences[sequence].tasks for row in task.splits[split]["id"]}


def test_a_split_column_is_honoured(read: Read) -> None:
    data = read([*rows(40, "train"), *rows(16, "val", 100), *rows(12, "test", 200)])
    described = data.described()["rows"]
    assert described["train"] == 40
    assert described["validate"] + described["certify"] == 16
    assert described["test"] == 12
    assert ids(data, "train") == {f"table-{n}" for n in range(1, 41)}
    assert ids(data, "test") == {f"table-{n}" for n in range(57, 69)}


def test_without_given_splits_test_rows_are_the_same_for_every_seed(read: Read, tmp_path: Path) -> None:
    data = read([row[:3] for row in rows(80, "")])
    assert ids(data, "test", 0) == ids(data, "test", 1)
    assert ids(data, "test").isdisjoint(ids(data, "train"))


def test_seeds_differ_in_what_makes_a_task(read: Read) -> None:
    groupings = {
        tuple(task.label_names for task in sequence.tasks)
        for sequence in read(rows(80, "train"), seeds=range(8)).sequences
    }
    assert len(groupings) > 1


def test_the_tail_of_a_long_tail_differs_by_seed(read: Read) -> None:
    data = read(rows(80, "train"), seeds=range(8), long_tail={"imbalance_factor": 4})
    assert len({sequence.long_tail for sequence in data.sequences}) > 1
    assert all(len(ids(data, "train", seed)) < 40 for seed in range(8))


def test_numbers_reach_the_stream_as_they_are(read: Read, tmp_path: Path) -> None:
    data = read([*rows(40, "train"), *rows(12, "test", 200)], salt=3)
    stream = data.streams(TextEncoderConfig(model="none"), tmp_path, tmp_path)[0]
    batch = stream.tasks[0].take("test", torch.arange(2))
    assert stream.in_features == 2
    assert batch.features[:, 1].tolist() == [0.5, 0.5]
    assert batch.features[0, 0] >= 200
    assert stream.train_counts.sum() == data.described()["rows"]["train"]


def test_a_stream_is_named_by_its_content(read: Read, tmp_path: Path) -> None:
    encoder = TextEncoderConfig(model="none")
    same = [read(rows(80, "train")).streams(encoder, tmp_path, tmp_path) for _ in range(2)]
    other = read([*rows(80, "train"), (999, 1.0, "class-0", "train")]).streams(encoder, tmp_path, tmp_path)
    assert [stream.fingerprint for stream in same[0]] == [stream.fingerprint for stream in same[1]]
    assert len({stream.fingerprint for stream in (*same[0], *other)}) == 4


def test_a_task_without_test_rows_is_refused(read: Read) -> None:
    unanswered = [row for row in rows(16, "test", 200) if row[2] != "class-3"]
    with pytest.raises(DataError, match=r"test rows|no test"):
        read([*rows(40, "train"), *unanswered], num_tasks=4)


def test_a_column_that_is_no_number_is_refused_by_name(read: Read) -> None:
    with pytest.raises(DataError, match=r"table-2: 'many' in column 'x' is not a finite number"):
        read([(1, 2, "a"), ("many", 2, "b")])


def test_numbers_survive_their_way_through_text() -> None:
    row = [0.1, -2e5, 1 / 3]
    written = numbers_text(pa.chunked_array([[row, None]], pa.list_(pa.float32(), 3))).to_pylist()
    assert written[1] == ""
    encoded = NumbersEncoder(3).encode(contents(written[:1]))
    np.testing.assert_array_equal(encoded, np.array([row], dtype=np.float32))


def test_texts_are_encoded_once_and_a_nan_is_named(tmp_path: Path) -> None:
    def features(texts: list[str], load: Callable[[], NumbersEncoder]) -> dict[str, np.ndarray]:
        found = cached_features(contents(texts), load, "identity", tmp_path)
        return {content.text: vector for content, vector in found.items()}

    first = features(["2 3", "1 2", "2 3"], lambda: NumbersEncoder(2))
    again = features(["1 2", "2 3"], lambda: pytest.fail("the encoder was loaded again"))
    assert first["2 3"].tolist() == again["2 3"].tolist() == [2, 3]
    with pytest.raises(DataError, match="'nan 1'"):
        features(["nan 1"], lambda: NumbersEncoder(2))
