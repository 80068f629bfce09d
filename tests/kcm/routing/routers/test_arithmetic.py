"""The figures of a response are checked as a person would with a pocket calculator; nothing else counts."""

from __future__ import annotations

import numpy as np
import pytest

from kcm.routing.routers.arithmetic import arithmetic_checks


@pytest.mark.parametrize(
    ("response", "right", "wrong"),
    [
        ("3 * $4.50 = $13.50, so 13.5 + 2 = 15.5", 2, 0),
        ("2 + 3 * 4 = 14", 1, 0),
        ("20 - 6 / 3 - 1 = 17", 1, 0),
        ("25% x 1,200 = 300", 1, 0),
        ("10 / 3 = 3.33", 1, 0),
        ("2 + 3 * 4 = 20 and 7 + 5 = 13", 0, 2),
        ("7 / 0 = 0", 0, 1),
        ("= 3, 3 =, 4 = 4, x = 2, nothing to see", 0, 0),
        ("", 0, 0),
    ],
)
def test_sums_come_out_or_do_not(response: str, right: int, wrong: int) -> None:
    np.testing.assert_allclose(np.expm1(arithmetic_checks([""], [response])[0, :2]), [right, wrong])


def test_figures_of_the_question_that_a_response_leaves_out_are_counted_once() -> None:
    checks_N3 = arithmetic_checks(["1,000 eggs at $3, 3 days", "no figures"], ["1000 eggs", "4"])
    np.testing.assert_allclose(np.expm1(checks_N3[:, 2]), [1, 0])
