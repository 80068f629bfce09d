"""What the money of a job buys."""

import numpy as np

from kcm.labelling.purchases import Money


def test_paid_answers_are_free_under_a_lowered_cap() -> None:
    """A cap below what was spent buys nothing new, and takes no paid answer away."""
    money = Money(lambda: np.array([0.0, 0.0, 0.2]), lambda: -4.0)
    assert money.affords(np.arange(3)) == 2
