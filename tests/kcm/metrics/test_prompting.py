"""What a hint does, row by row."""

import pytest

from kcm.metrics.routing import prompt_effect


def test_every_row_is_counted_under_what_the_hint_did_to_it():
    # corrected, misled, stays right, stays wrong, right then off the list, wrong then failed
    effect = prompt_effect(
        labels=[0, 0, 0, 0, 0, 0],
        answers=[0, 1, 0, 1, -1, -1],
        plain_answers=[1, 0, 0, 1, 0, 1],
        failed=[False, False, False, False, False, True],
    )
    assert effect.num_rows == 6
    assert (effect.corrected, effect.misled) == pytest.approx((1 / 6, 2 / 6))
    assert (effect.off_label, effect.failed) == pytest.approx((1 / 6, 1 / 6))


def test_no_rows_have_no_effect():
    assert prompt_effect([], [], [], []) is None
