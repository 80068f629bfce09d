"""The vectors of a table's texts."""

import numpy as np
import pytest

from kcm.labelling.encoding import word_vectors

TEXTS = [f"{word} {noun} number {n}" for n in range(10) for word in ("good", "bad") for noun in ("film", "play")]


def test_parts_change_no_vector_of_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: how many texts are in memory as sparse rows together changes nothing, the last few included."""
    whole = word_vectors(TEXTS)
    monkeypatch.setattr("kcm.labelling.encoding._CHUNK", 7)
    assert (word_vectors(TEXTS) == whole).all()
    assert np.linalg.norm(whole, axis=1) == pytest.approx(1)
