"""The outcome table: what it derives, what it keeps through a file, and which rows it refuses by name."""

import dataclasses

import numpy as np
import pyarrow.parquet as pq
import pytest

from kcm.cascade.table import OutcomeTable, concatenate
from kcm.errors import DataError
from tests.outcome_files import read_outcomes


def test_who_is_right_follows_from_the_answers(table):
    assert table.small_label.tolist() == [0, 2, 2, 0, 0]
    assert table.small_correct.tolist() == [True, False, True, False, False]
    assert table.large_correct.tolist() == [True, True, False, False, True]


def test_a_selection_of_another_prompt_keeps_its_baseline(table):
    soft = table.where(prompt="soft")
    assert soft.id.tolist() == ["d"]
    assert (soft.large_correct.tolist(), soft.large_none_correct.tolist()) == ([True], [False])


def test_rows_are_selected_by_split_task_and_prompt_together(table):
    assert table.where(split="validate", task="two", prompt="none").id.tolist() == ["d"]
    assert table.where(task="one").id.tolist() == ["a", "b"]
    assert len(table.where(split="certify", task="two")) == 0
    assert table.select([2, 0]).id.tolist() == ["c", "a"]


def test_a_file_gives_back_the_same_table(columns, tmp_path):
    table = OutcomeTable(**columns, group=["g", None, "h", "g", "g"])
    pq.write_table(table.to_arrow(), tmp_path / "table.parquet")
    again = read_outcomes(tmp_path / "table.parquet")
    for field in dataclasses.fields(table):
        mine, theirs = getattr(table, field.name), getattr(again, field.name)
        np.testing.assert_array_equal(mine, theirs, err_msg=field.name)
        assert getattr(mine, "dtype", None) == getattr(theirs, "dtype", None)


@pytest.mark.parametrize(
    ("column", "row", "value", "message"),
    [
        ("split", 0, "train", "split must be one of validate, certify, test .*id 'a': 'train'"),
        ("prompt", 1, "loud", "prompt must be one of none, soft, hard .*id 'b'"),
        ("label", 2, 3, r"label must lie in 0\.\.2 .*id 'c': 3"),
        ("label", 2, -1, "id 'c': -1"),
        ("large_label", 0, 7, "large_label must lie in -1"),
        ("large_label", 2, 1, "must be -1 where large_error is set .*id 'c'"),
        ("judge_logits", 1, [np.nan, 0, 0], "judge_logits must be finite.*id 'b'"),
        ("small_logits", 1, [np.inf, 0, 0], "small_logits must be finite.*id 'b'"),
        ("small_logits", 1, [-np.inf] * 3, "small_logits must be finite.*id 'b'"),
        ("large_cost", 3, -1.0, "large_cost must be finite and >= 0 .*id 'd'"),
        ("large_cost", 3, np.nan, "large_cost must be finite"),
        ("large_probabilities", 0, [0.5, 0.4, 0.0], "sum to 1.*id 'a'"),
        ("large_probabilities", 0, [1.5, -0.5, 0.0], "sum to 1.*id 'a'"),
        ("large_probabilities", 0, [np.nan, 0.5, 0.5], "sum to 1.*id 'a'"),
        ("id", 0, None, "id must be given"),
        ("task", 0, None, "task must be given"),
        ("id", 1, "a", "prompt occurs twice for the same id .*id 'a'"),
        ("split", 4, "test", "split differs between rows of the same id .*id 'd': 'test'"),
        ("task", 4, "one", "task differs between rows of the same id"),
        ("label", 4, 0, "label differs between rows of the same id"),
        ("prompt", 3, "hard", "has no row with prompt none beside it"),
    ],
)
def test_a_bad_row_is_refused_by_name(columns, column, row, value, message):
    columns[column][row] = value
    with pytest.raises(DataError, match=message):
        OutcomeTable(**columns)


def test_a_group_in_two_splits_is_refused(columns):
    with pytest.raises(DataError, match=r"group occurs in two splits.*id 'b': 'g'"):
        OutcomeTable(**columns, group=["g", "g", None, None, None])


def test_many_bad_rows_are_counted(columns):
    columns["label"] = [9] * 5
    with pytest.raises(DataError, match="and 2 more"):
        OutcomeTable(**columns)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("large_cost", [1.0], r"shape \(1,\), expected \(5,\)"),
        ("judge_logits", np.zeros((5, 2)), r"shape \(5, 2\), expected \(5, 3\)"),
        ("label_names", ("red", "red", "blue"), "must be distinct"),
    ],
)
def test_columns_of_another_shape_are_refused(columns, column, value, message):
    with pytest.raises(DataError, match=message):
        OutcomeTable(**{**columns, column: value})


def test_tables_are_joined_and_checked_together(table):
    rows = concatenate([table.where(split="validate"), table.where(split="test")])
    assert rows.id.tolist() == ["a", "d", "d", "c"]
    with pytest.raises(DataError, match="occurs twice"):
        concatenate([table, table.where(split="test")])


def test_tables_over_other_labels_are_not_joined(table, columns):
    with pytest.raises(DataError, match="different labels"):
        concatenate([table, OutcomeTable(**{**columns, "label_names": ("a", "b", "c")})])
