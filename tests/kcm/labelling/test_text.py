"""The small model of a table: what a large one costs."""

import numpy as np
import pytest

from kcm.labelling.purchases import Guess
from kcm.labelling.regression import Array, Regression
from kcm.labelling.text import VectorSide

NUM_TEXTS, NUM_BOUGHT = 400, 120


def guessed() -> Guess:
    """Three overlapping clouds, of which some are bought."""
    rng = np.random.default_rng(0)
    label_U = rng.integers(0, 3, NUM_TEXTS)
    vectors = np.eye(8)[label_U] + rng.normal(scale=0.5, size=(NUM_TEXTS, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    bought = rng.permutation(NUM_TEXTS)[:NUM_BOUGHT]
    return VectorSide(vectors.astype(np.float32)).fit(bought, label_U[bought])


def test_blocks_change_no_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: how many likenesses are in memory together does not change what is bought."""
    whole = guessed()
    monkeypatch.setattr("kcm.labelling.text._MAX_PAIRS", 7 * NUM_BOUGHT)
    blocks = guessed()
    assert (blocks.answer_U == whole.answer_U).all()
    assert blocks.wrong_U == pytest.approx(whole.wrong_U, abs=1e-6)
    assert np.unique(whole.answer_U).size == 3


def test_many_bought_texts_teach_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: memory does not grow with what is bought, and every text still gets a guess."""
    rows = []
    fitted = Regression.fitted.__func__  # type: ignore[attr-defined]

    def counting(cls: type[Regression], x_BP: Array, target_BC: Array) -> Regression:
        rows.append(len(x_BP))
        return fitted(cls, x_BP, target_BC)

    monkeypatch.setattr(Regression, "fitted", classmethod(counting))
    monkeypatch.setattr("kcm.labelling.text.MAX_TAUGHT", 60)
    guess = guessed()
    assert rows == [60]
    assert len(guess.answer_U) == len(guess.wrong_U) == NUM_TEXTS
