"""Scored rows: what counts as right for accuracy, and what for a certificate."""

from kcm.cascade.scored import ScoredOutcomes
from tests.outcome_files import rows_where


def test_a_failed_answer_is_wrong_for_accuracy_and_right_for_a_certificate(table):
    rows = ScoredOutcomes.of(rows_where(table, prompt="none"), [4, 3, 2, 1])
    assert rows.baseline_correct[2] == False  # noqa: E712
    assert rows.certified_baseline.tolist() == [True, True, True, False]


def test_rows_under_a_changed_prompt_keep_their_baseline_apart(table):
    rows = ScoredOutcomes.of(rows_where(table, prompt="soft"), [1])
    assert rows.prompted
    assert (rows.large_correct.tolist(), rows.baseline_correct.tolist()) == ([True], [False])


def test_rows_are_split_by_task(table):
    parts = ScoredOutcomes.of(rows_where(table, prompt="none"), [4, 3, 2, 1]).by_task()
    assert {task: part.score.tolist() for task, part in parts.items()} == {"one": [4, 3], "two": [2, 1]}
