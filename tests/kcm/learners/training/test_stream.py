"""Every train row comes once an epoch, in an order that the seed alone decides, read by row group from Parquet."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kcm.errors import DataError
from kcm.learners.training.order import ROWS_PER_GROUP, TrainOrder
from kcm.learners.training.stream import ParquetRows
from kcm.tasks.columns import list_column, matrix


@settings(max_examples=25)
@given(
    sizes=st.lists(st.integers(1, 3 * ROWS_PER_GROUP), min_size=1, max_size=3),
    window=st.integers(1, 4),
    epoch=st.integers(0, 3),
)
def test_every_row_comes_once_an_epoch(sizes, window, epoch) -> None:
    chunks = list(TrainOrder(sizes, seed=1, task=0, epoch=epoch, window=window))
    rows = sorted(
        (s, p) for streams, positions in chunks for s, p in zip(streams.tolist(), positions.tolist(), strict=True)
    )
    assert rows == [(s, p) for s, size in enumerate(sizes) for p in range(size)]
    assert all(len(streams) <= window * ROWS_PER_GROUP for streams, _ in chunks)


def test_the_order_changes_with_epoch_task_and_seed_only() -> None:
    def order(**changes: int) -> list[int]:
        arguments = {"seed": 0, "task": 0, "epoch": 0, "window": 2} | changes
        return torch.cat([positions for _, positions in TrainOrder([5000], **arguments)]).tolist()

    assert order() == order()
    assert len({tuple(order(**change)) for change in ({}, {"seed": 1}, {"task": 1}, {"epoch": 1})}) == 4


def write_task(folder, num_rows: int, *, shuffled_outcomes: bool = False):
    rng = np.random.default_rng(0)
    features, large = (
        rng.normal(size=(num_rows, 4)).astype(np.float32),
        rng.dirichlet([1, 1], num_rows).astype(np.float32),
    )
    ids = [f"row-{n}" for n in range(num_rows)]
    splits = ["train"] * (num_rows - 10) + ["test"] * 10
    columns = {"id": ids, "split": splits, "label": rng.integers(0, 2, num_rows), "features": list_column(features)}
    pq.write_table(pa.table(columns), folder / "features.parquet", row_group_size=ROWS_PER_GROUP)
    outcome_ids = ids[::-1] if shuffled_outcomes else ids
    large_labels = large.argmax(1)
    answers = large.copy()
    answers[:2] = np.nan  # the first row has only a label, the second no answer at all
    large[0], large[1], large_labels[1] = np.eye(2)[large_labels[0]], np.nan, -1
    columns_of_answers = {"large_label": large_labels, "large_probabilities": list_column(answers)}
    outcomes = pa.table({"id": outcome_ids} | columns_of_answers)
    pq.write_table(outcomes, folder / "outcomes.parquet", row_group_size=ROWS_PER_GROUP)
    return features, large, columns["label"]


def test_rows_read_by_index_are_the_rows_that_were_written(tmp_path) -> None:
    features, large, labels = write_task(tmp_path, 2500)
    rows = ParquetRows("task", [tmp_path / "features.parquet"], [tmp_path / "outcomes.parquet"])
    assert (rows.num_rows("train"), rows.num_rows("test"), rows.num_rows("validate")) == (2490, 10, 0)
    positions = torch.tensor([2000, 3, 1024, 1023, 2000, 0, 1])
    batch = rows.take("train", positions)
    np.testing.assert_array_equal(batch.features.numpy(), features[positions])
    np.testing.assert_array_equal(batch.large_probabilities.numpy(), large[positions])
    np.testing.assert_array_equal(batch.labels.numpy(), labels[positions])
    np.testing.assert_array_equal(rows.take("test", torch.tensor([9])).features.numpy(), features[-1:])
    assert rows.ids_and_labels("test", 0, 2) == (["row-2490", "row-2491"], labels[2490:2492].tolist())
    assert rows.label_counts("test") == dict(zip(*np.unique(labels[-10:], return_counts=True), strict=True))


def test_outcomes_of_other_rows_are_refused(tmp_path) -> None:
    write_task(tmp_path, 100, shuffled_outcomes=True)
    with pytest.raises(DataError, match="different rows"):
        ParquetRows("task", [tmp_path / "features.parquet"], [tmp_path / "outcomes.parquet"]).read("train", 0, 1)


def test_a_split_in_two_pieces_is_refused(tmp_path) -> None:
    columns = {"id": ["a", "b", "c"], "split": ["train", "test", "train"], "label": [0, 1, 0]}
    pq.write_table(pa.table(columns | {"features": list_column(np.zeros((3, 2)))}), tmp_path / "features.parquet")
    with pytest.raises(DataError, match="contiguous"):
        ParquetRows("task", [tmp_path / "features.parquet"], None)


def test_a_matrix_survives_a_sliced_column() -> None:
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    table = pa.table({"features": list_column(values)})
    np.testing.assert_array_equal(matrix(table.slice(2, 3)["features"]), values[2:5])
