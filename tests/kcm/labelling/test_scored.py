"""`kcm.label_scored`: its example, and answers that are no label."""

import doctest

import numpy as np
import pytest

from kcm.labelling import scored
from kcm.labelling.certificate import at_least
from kcm.labelling.scored import label_scored


@pytest.mark.parametrize("answer", [2, -1])
def test_answer_that_is_no_label_is_refused(answer: int) -> None:
    """A label beyond the columns would be delivered, and one below zero would count as no answer."""
    with pytest.raises(ValueError, match=rf"oracle: expected 0 to 1 or None for row \d+, got {answer}"):
        label_scored(np.full((30, 2), 0.5), lambda rows: [answer] * len(rows))


def test_the_example_is_true() -> None:
    assert doctest.testmod(scored).failed == 0


def test_certainty_is_claimed_only_if_everything_was_bought() -> None:
    """No error is allowed and none was drawn, but labels that nobody bought are right with 95% at most."""
    truth = np.arange(300) % 2
    sure = np.where(truth == 1, 0.9999, 0.0001)
    found = label_scored(np.stack([1 - sure, sure], 1), lambda rows: truth[rows], target=0.999999, seed=23)
    assert found.certificate.most_differ == 0
    assert not found.bought.all()
    assert found.certificate.sentence.startswith("With 95% probability, at least 100.00% of the 300 labels are")
    everything = label_scored(np.full((300, 2), 0.5), lambda rows: truth[rows], target=0.999999)
    assert everything.bought.all()
    assert everything.certificate.sentence == "All 300 labels are the LLM's own."


@pytest.mark.parametrize(
    ("share", "text"), [(0.999999, "99.99%"), (0.949999, "94.99%"), (0.95, "95.00%"), (0.29, "29.00%"), (1, "100.00%")]
)
def test_proved_shares_are_rounded_down(share: float, text: str) -> None:
    assert at_least(share) == text
