"""Every metric of the continual learner against matrices worked out by hand."""

import numpy as np
import pytest

from kcm.errors import DataError
from kcm.metrics import continual

# Rows: after task 1, 2, 3. Task 1 rises to 0.9 after task 2 before it falls, so the two kinds of forgetting differ.
R = [
    [0.8, 0.3, 0.2],
    [0.9, 0.7, 0.4],
    [0.5, 0.6, 1.0],
]
B = [0.1, 0.2, 0.25]
NAN = float("nan")


def test_the_summary_of_three_tasks_is_the_hand_worked_one():
    assert continual.summarise(R, B) == pytest.approx(
        {
            "average_accuracy": (0.5 + 0.6 + 1.0) / 3,
            "average_incremental_accuracy": (0.8 + (0.9 + 0.7) / 2 + (0.5 + 0.6 + 1.0) / 3) / 3,
            "learning_accuracy": (0.8 + 0.7 + 1.0) / 3,
            "forgetting_first": ((0.8 - 0.5) + (0.7 - 0.6)) / 2,
            "forgetting_max": ((0.9 - 0.5) + (0.7 - 0.6)) / 2,
            "bwt": -((0.8 - 0.5) + (0.7 - 0.6)) / 2,
            "fwt": ((0.3 - 0.2) + (0.4 - 0.25)) / 2,
        }
    )


def test_single_task_has_no_forgetting_or_transfer():
    summary = continual.summarise([[0.75]], [0.5])
    undefined = {"forgetting_first", "forgetting_max", "bwt", "fwt"}
    assert {name for name, value in summary.items() if value is None} == undefined
    assert all(value == 0.75 for name, value in summary.items() if name not in undefined)


def test_improvement_is_negative_forgetting():
    assert continual.forgetting_first([[0.5, NAN], [0.7, 0.9]]) == pytest.approx(-0.2)
    assert continual.bwt([[0.5, NAN], [0.7, 0.9]]) == pytest.approx(0.2)


def test_the_last_row_is_no_part_of_the_best_that_was_ever_known():
    rising = [[0.5, NAN], [0.7, 0.9]]
    assert continual.forgetting_max(rising) == pytest.approx(-0.2)


@pytest.mark.parametrize(
    ("matrix", "initial"),
    [(R, None), ([[0.8, NAN], [0.5, 1.0]], [0.1, 0.2]), ([[0.8, 0.3], [0.5, 1.0]], [0.1, NAN])],
    ids=["no initial accuracy", "tasks not evaluated before they are learned", "initial accuracy unknown"],
)
def test_forward_transfer_needs_a_measurement_before_learning(matrix, initial):
    assert continual.fwt(matrix, initial) is None


def test_tasks_not_learned_yet_do_not_enter_any_other_metric():
    masked = np.where(np.triu(np.ones((3, 3)), 1) > 0, NAN, R)
    full, seen = continual.summarise(R, B), continual.summarise(masked, B)
    assert seen == {**full, "fwt": None}


@pytest.mark.parametrize("bad", [[[0.5, 0.5]], [], [0.5], [[0.5, NAN], [NAN, 0.5]]])
def test_incomplete_or_non_square_matrix_is_refused(bad):
    with pytest.raises(DataError, match="R"):
        continual.summarise(bad)
