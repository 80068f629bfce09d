"""Recorded answers find their rows, whatever the order of either and however many parts they are joined in."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kcm.errors import DataError
from kcm.large import RecordedConfig
from pipelines.batch import lookup
from pipelines.batch.lookup import look_up
from pipelines.store.features import write_rows
from pipelines.store.storage import Storage

LABELS = ("no", "yes")
BAR = SimpleNamespace(update=lambda done, total: None)


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
    return look_up(
        large,
        LABELS,
        sources,
        num_labels=2,
        cluster=None,
        scratch=tmp_path / "scratch",
        storage=Storage.at(tmp_path),
        bar=BAR,
    )


@pytest.fixture
def rows(tmp_path):
    for number in range(2):
        ids = [f"row {n}" for n in range(number * 20, number * 20 + 20)]
        write_rows(tmp_path, number, pa.table({"id": ids, "split": ["train"] * 20}))
    return [f"row {n}" for n in range(40)]


@pytest.mark.parametrize("in_part", [7, 1_000_000])
def test_answers_in_any_order_come_in_the_order_of_the_rows(rows, tmp_path, monkeypatch, in_part) -> None:
    monkeypatch.setattr(lookup, "ROWS_PER_PART", in_part)
    shuffled = [rows[n] for n in np.random.default_rng(0).permutation(40)]
    made, took = found(tmp_path, answers(tmp_path, [*shuffled, "row 99"]))  # and one that nobody asks for
    tables = [pq.read_table(made[f"task-000{number}.parquet"].kept.path) for number in range(2)]
    table = pa.concat_tables(tables)
    assert table["id"].to_pylist() == rows
    assert table["large_label"].to_pylist() == [-1 if n == 7 else 1 - n % 2 for n in range(40)]
    assert table["large_error"].to_pylist() == [n == 7 for n in range(40)]
    assert table["large_cost"].to_pylist() == [n / 10 for n in range(40)]
    assert table["large_probabilities"].to_pylist()[1] == [0.75, 0.25]
    assert np.isnan(table["large_probabilities"].to_pylist()[7]).all()
    assert took == {"rows": 40, "tokens": 80, "currency": 0.0}


def test_a_row_without_an_answer_or_with_two_is_named(rows, tmp_path) -> None:
    with pytest.raises(DataError, match="1 items have no recorded answer, the first is 'row 39'"):
        found(tmp_path, answers(tmp_path, rows[:-1]))


def test_two_answers_for_a_row_are_refused(rows, tmp_path) -> None:
    with pytest.raises(DataError, match="two answers for item 'row 3'"):
        found(tmp_path, answers(tmp_path, [*rows, "row 3"]))
