"""Answers keep their meaning on the way through an outcomes file."""

import numpy as np
import pytest

from kcm.inputs.vectors import matrix
from kcm.large import LargeAnswer
from kcm.tasks.shards import write_shards
from pipelines.store.outcomes import Answers, OutcomesArtefact, in_label_list
from tests.pipelines.made_parts import ANSWERS, ROWS


def test_off_list_answer_is_no_failure_and_missing_one_is() -> None:
    """Promise: an answer off the list is no failure and one that never came is."""
    answers = Answers.of(ANSWERS, 2)
    assert answers.label_N.tolist() == [1, 0, -1, -1]
    assert answers.failed_N.tolist() == [False, False, False, True]
    assert answers.cost_N.tolist() == [2.0, 0.0, 0.0, 0.0]
    np.testing.assert_array_equal(
        answers.probabilities_NC[:2], np.array([[0.25, 0.75], [np.nan] * 2], dtype=np.float32)
    )


@pytest.mark.filterwarnings("error")
def test_answers_keep_their_meaning_when_the_label_list_grows(tmp_path) -> None:
    """Two labels and none-of-these were known when they were given; the sequence has four labels now."""
    given = [
        LargeAnswer(1, np.array([0.25, 0.5, 0.25], dtype=np.float32)),
        LargeAnswer(2, np.array([0, 0, 1], dtype=np.float32)),
        LargeAnswer(0, None),
        LargeAnswer(None, None, error="time-out"),
    ]
    write_shards(tmp_path, 0, [Answers.of(given, 2).table(ROWS)])
    answers = in_label_list(OutcomesArtefact("outcomes", "", tmp_path).task(0), 4)
    assert answers["large_label"].to_pylist() == [1, 4, 0, -1]
    third = np.float32(1 / 3)
    np.testing.assert_allclose(matrix(answers["large_probabilities"])[0], [third, 2 * third, 0, 0], rtol=1e-6)
    assert np.isnan(matrix(answers["large_probabilities"])[1:]).all()
    assert in_label_list(answers, 4) is answers
