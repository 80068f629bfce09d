"""Recorded answers find their rows, whatever the order of either."""

from unittest.mock import Mock

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kcm.errors import DataError
from kcm.large.adapters.recorded import RecordedConfig, RecordedModel
from kcm.tasks.shards import write_shards
from pipelines.batch import recorded
from pipelines.batch.recorded import look_up_shards
from pipelines.store.sequence import Names
from pipelines.store.storage import Storage

LABELS = ("no", "yes")


def answers(tmp_path, ids) -> RecordedConfig:
    """An answer to each id: yes for even numbers, none for the number 7."""
    numbers = [int(row_id.split()[1]) for row_id in ids]
    columns = {
        "id": ids,
        "label": [None if n == 7 else LABELS[1 - n % 2] for n in numbers],
        "probability:no": [n % 2 * 0.5 + 0.25 for n in numbers],
        "probability:yes": [0.75 - n % 2 * 0.5 for n in numbers],
        "seconds": [n / 10 for n in numbers],
        "tokens": [2] * len(ids),
    }
    pq.write_table(pa.table(columns), tmp_path / "answers.parquet")
    return RecordedConfig(path=str(tmp_path / "answers.parquet"))


def found(tmp_path, large):
    sources = {path.name: path for path in sorted(tmp_path.glob("task-*.parquet"))}
    names = Names((), LABELS, None)
    arguments = RecordedModel(large, LABELS), large.location, names, sources, tmp_path / "made", Storage.at(tmp_path)
    return look_up_shards(*arguments)


@pytest.fixture
def rows(tmp_path):
    for number in range(2):
        ids = [f"row {n}" for n in range(number * 20, number * 20 + 20)]
        write_shards(tmp_path, number, [pa.table({"id": ids, "split": ["train"] * 20})])
    return [f"row {n}" for n in range(40)]


def test_answers_in_any_order_come_in_the_order_of_the_rows(rows, tmp_path) -> None:
    shuffled = [rows[n] for n in np.random.default_rng(0).permutation(40)]
    took = found(tmp_path, answers(tmp_path, [*shuffled, "row 99"]))  # and one that nobody asks for
    tables = [pq.read_table(tmp_path / "made" / name) for name in ("task-0000.parquet", "task-0001.parquet")]
    table = pa.concat_tables(tables)
    assert table["id"].to_pylist() == rows
    assert table["large_label"].to_pylist() == [-1 if n == 7 else 1 - n % 2 for n in range(40)]
    assert table["large_error"].to_pylist() == [n == 7 for n in range(40)]
    assert table["large_cost"].to_pylist() == [n / 10 for n in range(40)]
    assert table["large_probabilities"].to_pylist()[1] == [0.75, 0.25]
    assert np.isnan(table["large_probabilities"].to_pylist()[7]).all()
    assert took == {"rows": 40, "tokens": 80, "currency": 0.0}


def test_missing_recorded_answers_are_counted_and_named(rows, tmp_path) -> None:
    """Promise: rows without an answer are counted and the first is named."""
    large = answers(tmp_path, [*reversed(rows[:18]), *rows[20:39], "row 99"])
    message = r"3 of 40 rows have no recorded answer, the first is 'row 18' .*answers\.parquet"
    with pytest.raises(DataError, match=message):
        found(tmp_path, large)


def test_two_answers_for_a_row_are_refused(rows, tmp_path) -> None:
    with pytest.raises(DataError, match="two answers for item 'row 3'"):
        found(tmp_path, answers(tmp_path, [*rows, "row 3"]))


def test_answers_that_do_not_fit_into_memory_end_in_a_line(rows, tmp_path, monkeypatch) -> None:
    """Ten thousand labels need ten thousand probabilities a row."""
    monkeypatch.setattr(recorded, "_joined", Mock(side_effect=duckdb.OutOfMemoryException("1 GB used")))
    with pytest.raises(DataError, match="do not fit into memory with 2 labels"):
        found(tmp_path, answers(tmp_path, rows))
