"""The outcome table: what it derives, and what it keeps through a file."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow.parquet as pq
import pytest

from kcm.cascade.outcome_rows import OutcomeTable, ScoredOutcomes
from kcm.errors import DataError
from tests.outcome_files import read_outcomes


def test_who_is_right_follows_from_the_answers(table):
    assert table.small_label.tolist() == [0, 2, 2, 0]
    assert table.small_correct.tolist() == [True, False, True, False]
    assert table.large_correct.tolist() == [True, True, False, False]


def test_a_file_gives_back_the_same_table(columns, tmp_path):
    table = OutcomeTable(**columns | {"group": np.array(["g", None, "h", "g"], dtype=object)})
    pq.write_table(table.to_arrow(), tmp_path / "table.parquet")
    again = read_outcomes(tmp_path / "table.parquet")
    for field in dataclasses.fields(table):
        mine, theirs = getattr(table, field.name), getattr(again, field.name)
        np.testing.assert_array_equal(mine, theirs, err_msg=field.name)
        assert getattr(mine, "dtype", None) == getattr(theirs, "dtype", None)


def test_failed_answer_is_wrong_for_accuracy_right_for_proof(table):
    rows = ScoredOutcomes.of(table, [4, 3, 2, 1])
    assert not rows.large_correct[2]
    assert rows.certified_baseline.tolist() == [True, True, True, False]


def test_rows_are_split_by_task(table):
    parts = ScoredOutcomes.of(table, [4, 3, 2, 1]).by_task()
    assert {task: part.score.tolist() for task, part in parts.items()} == {"one": [4, 3], "two": [2, 1]}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_have_to_be_finite(bad):
    with pytest.raises(DataError, match="1 are not, the first in row 1"):
        ScoredOutcomes(score=[0.0, bad], small_correct=[True, True], large_correct=[True, True])
