"""Rows that match become queries both ways, ranked by networks and cosines together."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from benchmarks.galleries.scores import IMAGE_TO_TEXT, TEXT_TO_IMAGE, Vectors, galleries
from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.tasks.readers.pairs import LABELS

NUM, DIM = 30, 6


def unit(seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((3 * NUM, DIM)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.fixture
def rows() -> pa.Table:
    names = [f"picture {number}" for number in range(3 * NUM)]
    captions = ["Twice", "twice", *names[2:]]
    splits = [split for split in ("validate", "certify", "test") for _ in range(NUM)]
    return pa.table({"id": names, "text": captions, "group": names, "split": splits, "task": ["t"] * len(names)})


@pytest.fixture
def collaborator() -> Collaborator:
    return Collaborator(DIM + 1, 2, NetworkConfig(hidden=()), "kan", seed=0)


def test_captions_are_asked_for_once_and_every_picture_that_has_one_is_right(rows, collaborator) -> None:
    found = galleries(rows, Vectors(unit(0), unit(1)), Vectors(unit(2), unit(3)), collaborator, LABELS)
    assert [(gallery.split, gallery.way) for gallery in found] == [
        (split, way) for split in ("validate", "certify", "test") for way in (IMAGE_TO_TEXT, TEXT_TO_IMAGE)
    ]
    pictures, captions = found[:2]
    assert pictures.relevant.shape == captions.relevant.T.shape == (NUM, NUM - 1)
    assert (pictures.relevant.sum(0) == np.array([1] * (NUM - 2) + [2])).all()
    assert (captions.relevant == pictures.relevant.T).all()


def test_networks_that_say_nothing_leave_the_ranking_to_the_cosine(rows, collaborator) -> None:
    with torch.no_grad():
        for parameter in collaborator.parameters():
            parameter.zero_()
    small = Vectors(unit(0), unit(1))
    gallery = galleries(rows, small, Vectors(unit(2), unit(3)), collaborator, LABELS)[2]
    cosine = small.images[NUM : 2 * NUM] @ small.texts[NUM : 2 * NUM].T
    for scores in (gallery.small, gallery.judge):
        # Columns are sorted by caption, and there all are their own.
        expected = cosine[:, np.argsort([str(name) for name in rows["text"][NUM : 2 * NUM].to_pylist()])]
        assert (scores.argsort(1) == expected.argsort(1)).all()
        assert scores.mean(1) == pytest.approx(0, abs=1e-6)
