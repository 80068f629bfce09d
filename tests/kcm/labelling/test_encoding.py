"""The vectors of a table's texts."""

import numpy as np
import pytest

from kcm.labelling.encoding import MULTILINGUAL, language_warning, word_vectors

TEXTS = [f"{word} {noun} number {n}" for n in range(10) for word in ("good", "bad") for noun in ("film", "play")]


def test_parts_change_no_vector_of_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: how many texts are in memory as sparse rows together changes nothing, the last few included."""
    whole = word_vectors(TEXTS)
    monkeypatch.setattr("kcm.labelling.encoding._CHUNK", 7)
    assert (word_vectors(TEXTS) == whole).all()
    assert np.linalg.norm(whole, axis=1) == pytest.approx(1)


@pytest.mark.parametrize(
    ("texts", "is_warned"),
    [
        (["我想退款", "包裹在哪里"] * 20, True),
        (["أين طردي", "где моя посылка"] * 20, True),
        (["Wo ist mein Päckchen? Größe €5", "où est mon colis"] * 20, False),
        (["plain English"] * 30 + ["我想"], False),
        (["123", "?"], False),
    ],
)
def test_letters_that_the_encoder_does_not_know_are_a_warning(texts: list[str], is_warned: bool) -> None:
    """The warning names a multilingual encoder; who has chosen an encoder gets none."""
    assert (MULTILINGUAL in language_warning("auto", texts)) == is_warned
    assert not language_warning(MULTILINGUAL, texts)
