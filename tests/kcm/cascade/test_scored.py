"""Scored rows: what counts as right for accuracy, and what for a certificate."""

import numpy as np
import pytest

from kcm.cascade.scored import ScoredOutcomes
from kcm.errors import DataError


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
