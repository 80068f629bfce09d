"""A dual encoder answers with the label whose prompt is most like the text."""

from collections.abc import Sequence

import numpy as np
import pytest
from pydantic import ValidationError

from kcm.encoders.text import TextEncoderConfig
from kcm.inputs.content import TEXT, Content
from kcm.large import Item
from kcm.large.adapters.zero_shot import ZeroShotConfig, ZeroShotModel
from tests.tiny_bert import save_bert

LABELS = ("sea", "sky", "sand")


class WordEncoder:
    """One direction for each word of the labels, and a common one; the texts it read are kept."""

    dim, reads = 4, TEXT

    def __init__(self) -> None:
        self.read = []

    def encode(self, inputs: Sequence[Content]) -> np.ndarray:
        texts = [content.text for content in inputs]
        self.read += texts
        if any("broken" in text for text in texts):
            return np.array([[np.nan if "broken" in text else 0.5] * 4 for text in texts], dtype=np.float32)
        vectors = np.array([[1.0, *(float(word in text) for word in LABELS)] for text in texts], dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def model(**changes) -> ZeroShotModel:
    encoder = WordEncoder()
    return ZeroShotModel(ZeroShotConfig(**changes), encoder, encoder, LABELS)


def test_probabilities_are_softmax_over_temperature():
    """Promise: probabilities are the softmax of similarities over the temperature."""
    blue, none = model(temperature=0.5).answer([Item("1", Content("the sky above")), Item("2", Content("nothing"))])
    weight = np.exp(np.array([0.5, 1.0, 0.5]) / 0.5)  # cosines of (1, 1) with itself and with another label's
    np.testing.assert_allclose(blue.probabilities, weight / weight.sum(), rtol=1e-5)
    np.testing.assert_allclose(none.probabilities, [1 / 3] * 3, rtol=1e-5)
    assert (blue.label, blue.error) == (1, None)
    assert blue.cost.seconds > 0


def test_the_identity_follows_all_that_decides(tmp_path):
    folders = [save_bert(tmp_path / str(seed), LABELS, seed=seed) for seed in (0, 1)]

    def identity(folder=folders[0], labels=LABELS, **changes):
        config = ZeroShotConfig(encoder=TextEncoderConfig(model=str(folder)), **changes)
        return config.identity(labels, tmp_path)

    others = [identity(folders[1]), identity(labels=("a", "b")), identity(temperature=1.0)]
    assert len({identity(), *others, identity(template="{label}")}) == 5


@pytest.mark.parametrize("template", ["about", "{label} or {label}", "{}"])
def test_a_template_has_one_place_for_the_label(template):
    with pytest.raises(ValidationError, match=r"must contain \{label\} exactly once"):
        ZeroShotConfig(template=template)


def test_a_broken_item_is_an_error_of_its_own():
    broken, fine = model().answer([Item("1", Content("broken")), Item("2", Content("fine"))])
    assert (broken.label, broken.error) == (None, "the model's probabilities are not numbers")
    assert fine.error is None
    assert model().answer([]) == []
