"""`kcm.label_scored`: its example, and answers that are no label."""

import doctest

import numpy as np
import pytest

from kcm.labelling import scored
from kcm.labelling.scored import label_scored


@pytest.mark.parametrize("answer", [2, -1])
def test_answer_that_is_no_label_is_refused(answer: int) -> None:
    """A label beyond the columns would be delivered, and one below zero would count as no answer."""
    with pytest.raises(ValueError, match=rf"oracle: expected 0 to 1 or None for row \d+, got {answer}"):
        label_scored(np.full((30, 2), 0.5), lambda rows: [answer] * len(rows))


def test_the_example_is_true() -> None:
    assert doctest.testmod(scored).failed == 0
