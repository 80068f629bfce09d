"""The nearest class mean answers like scikit-learn's, in whatever order classes come."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.neighbors import NearestCentroid

from kcm.study.means import NearestClassMean


def test_it_answers_like_scikit_learns_nearest_centroid() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 5, 200)
    features = (generator.normal(size=(200, 8)) + np.eye(5, 8)[labels]).astype(np.float32)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    ours = NearestClassMean(8, 5)
    for label in (3, 0, 4, 1, 2):
        rows = np.flatnonzero(labels == label)
        for part in np.array_split(rows, 3):
            ours.add(torch.from_numpy(features[part]), torch.from_numpy(labels[part]))
    expected = NearestCentroid().fit(unit, labels).predict(unit)
    assert (ours.predict(torch.from_numpy(features)).numpy() == expected).all()


def test_a_class_not_seen_is_never_the_answer() -> None:
    ours = NearestClassMean(2, 3)
    ours.add(torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
    assert ours.predict(torch.tensor([[-1.0, 0.0], [0.0, -1.0]])).tolist() == [1, 1]
