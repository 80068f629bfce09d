"""A classifier answers as its head does, and a hard prompt masks what is no candidate."""

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.special import softmax

from kcm.encoders.pixels import PixelsConfig
from kcm.errors import ConfigError
from kcm.inputs.content import TEXT, Content
from kcm.large import Item, LinearHead
from kcm.large.adapters.classifier import ClassifierConfig, ClassifierModel

LABELS = ("a", "b", "c")


class LengthEncoder:
    """Encodes a text by its number of characters."""

    dim, reads = 2, TEXT

    def encode(self, inputs: Sequence[Content]) -> np.ndarray:
        return np.array([[content.size, 1.0] for content in inputs], dtype=np.float32)


@pytest.fixture
def model() -> ClassifierModel:
    weight = np.array([[0, 0], [1, -3], [-1, 0]], dtype=np.float32)
    return ClassifierModel(LengthEncoder(), LinearHead(weight, np.zeros(3, dtype=np.float32)), LABELS)


def test_answers_are_the_softmax_of_the_head(model):
    answers = model.answer([Item("1", Content("x" * 5)), Item("2", Content("x"))])
    expected = softmax([[0, 2, -5], [0, -2, -1]], axis=1)
    np.testing.assert_allclose([answer.probabilities for answer in answers], expected, atol=1e-6)
    assert [answer.label for answer in answers] == [1, 0]
    assert all(answer.error is None and answer.cost.seconds > 0 for answer in answers)


def test_the_identity_follows_encoder_head_and_labels(tmp_path):
    def identity(head=1.0, labels=LABELS, side=4):
        weight = np.full((3, 2), head, dtype=np.float32)
        config = ClassifierConfig(encoder=PixelsConfig(side=side))
        return config.identity(labels, tmp_path, head=LinearHead(weight, np.zeros(3, dtype=np.float32)))

    assert identity() == identity()
    assert len({identity(), identity(head=2.0), identity(labels=("a", "b", "d")), identity(side=5)}) == 4


def test_a_head_of_other_size_than_the_label_list_is_refused():
    head = LinearHead(np.zeros((2, 2), dtype=np.float32), np.zeros(2, dtype=np.float32))
    with pytest.raises(ConfigError, match="2 classes, the label list 3"):
        ClassifierModel(LengthEncoder(), head, LABELS)
