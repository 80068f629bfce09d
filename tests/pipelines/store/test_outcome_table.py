"""Answers under prompts become rows of the outcome table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from kcm.cascade.table import OutcomeTable
from kcm.errors import ArtefactError
from kcm.large import LargeAnswer
from kcm.large.base import Cost
from pipelines.store.features import write_rows
from pipelines.store.outcome_table import with_prompts
from pipelines.store.outcomes import Answers

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


def test_answers_under_prompts_stand_below_the_same_rows_with_their_baseline(tmp_path) -> None:
    write_rows(tmp_path, 0, Answers.of(ANSWERS, 2).table(ROWS, "soft"))
    joined = with_prompts(table(), {"soft": tmp_path}, 1, ("validate", "test"))
    soft = joined.where(prompt="soft")
    assert len(joined) == 8
    assert soft.id.tolist() == ["a", "b", "c", "d"]
    assert soft.large_label.tolist() == [1, 0, -1, -1]
    assert soft.large_error.tolist() == [False, False, False, True]
    assert soft.none_label.tolist() == [0, 1, 0, 1]
    assert soft.large_none_correct.tolist() == [False, True, True, False]


def test_answers_of_other_rows_are_refused(tmp_path) -> None:
    write_rows(tmp_path, 0, Answers.of(ANSWERS, 2).table(ROWS, "soft"))
    other = replace(table(), id=np.array(["a", "b", "d", "c"], dtype=object))
    with pytest.raises(ArtefactError, match="not those of the same rows"):
        with_prompts(other, {"soft": tmp_path}, 1, ("validate", "test"))
