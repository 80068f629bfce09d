"""Answers keep their meaning on the way through an outcomes file into the outcome table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from kcm.cascade.table import OutcomeTable
from kcm.errors import ArtefactError
from kcm.large import LargeAnswer
from kcm.large.base import Cost
from pipelines.stages.features import read_features, task_file
from pipelines.store.outcome_file import Outcomes
from pipelines.store.outcome_table import with_prompts

ANSWERS = [
    LargeAnswer(1, np.array([0.25, 0.75], dtype=np.float32), Cost(seconds=2.0)),
    LargeAnswer(0, None),
    LargeAnswer(None, None, error="answered 'x'", off_label=True),
    LargeAnswer(None, None, error="time-out"),
]
ROWS = pa.table({"id": ["a", "b", "c", "d"], "split": ["validate", "validate", "test", "test"]})


def table() -> OutcomeTable:
    return OutcomeTable(
        id=np.array(ROWS["id"].to_pylist(), dtype=object),
        task=np.array(["t"] * 4, dtype=object),
        split=np.array(ROWS["split"].to_pylist(), dtype=object),
        label=np.array([1, 1, 0, 0]),
        judge_logits=np.zeros((4, 2)),
        small_logits=np.zeros((4, 2)),
        large_label=np.array([0, 1, 0, 1]),
        large_probabilities=np.full((4, 2), np.nan),
        large_cost=np.ones(4),
        large_error=np.zeros(4, dtype=bool),
        prompt=np.array(["none"] * 4, dtype=object),
        label_names=("no", "yes"),
    )


def test_an_answer_off_the_list_is_no_failure_and_one_that_never_came_is() -> None:
    told = Outcomes.of(ANSWERS, 2)
    assert told.label_N.tolist() == [1, 0, -1, -1]
    assert told.failed_N.tolist() == [False, False, False, True]
    assert told.cost_N.tolist() == [2.0, 0.0, 0.0, 0.0]
    np.testing.assert_array_equal(told.probabilities_NC[:2], np.array([[0.25, 0.75], [np.nan] * 2], dtype=np.float32))


def test_a_file_holds_the_rows_it_was_written_for(tmp_path) -> None:
    Outcomes.of(ANSWERS, 2).rows(slice(1, 3)).write(task_file(tmp_path, 0), ROWS.slice(1, 2), "soft")
    written = read_features(tmp_path, 0)
    assert written["id"].to_pylist() == ["b", "c"]
    assert written["prompt"].to_pylist() == ["soft", "soft"]
    assert written["large_label"].to_pylist() == [0, -1]


def test_answers_under_prompts_stand_below_the_same_rows_with_their_baseline(tmp_path) -> None:
    Outcomes.of(ANSWERS, 2).write(task_file(tmp_path, 0), ROWS, "soft")
    joined = with_prompts(table(), {"soft": tmp_path}, 1, ("validate", "test"))
    soft = joined.where(prompt="soft")
    assert len(joined) == 8
    assert soft.id.tolist() == ["a", "b", "c", "d"]
    assert soft.large_label.tolist() == [1, 0, -1, -1]
    assert soft.large_error.tolist() == [False, False, False, True]
    assert soft.none_label.tolist() == [0, 1, 0, 1]
    assert soft.large_none_correct.tolist() == [False, True, True, False]


def test_answers_of_other_rows_are_refused(tmp_path) -> None:
    Outcomes.of(ANSWERS, 2).write(task_file(tmp_path, 0), ROWS, "soft")
    other = replace(table(), id=np.array(["a", "b", "d", "c"], dtype=object))
    with pytest.raises(ArtefactError, match="not those of the same rows"):
        with_prompts(other, {"soft": tmp_path}, 1, ("validate", "test"))
