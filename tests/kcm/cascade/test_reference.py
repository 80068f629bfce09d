"""What the small side has kept: distances are scipy's Mahalanobis, neighbours those of scikit-learn."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

from kcm.cascade.reference import NEIGHBOURS, Reference
from kcm.collaborator.collaborator import Collaborator, NetworkConfig

X, Y = load_digits(return_X_y=True)
X = (X + np.random.default_rng(0).normal(size=X.shape)).astype(np.float32)
UNIT = X / np.linalg.norm(X, axis=1, keepdims=True)
MEMORY = {"ids": [str(i) for i in range(50)], "features": torch.from_numpy(X[:50]), "labels": torch.from_numpy(Y[:50])}


def collaborator(base):
    found = Collaborator(64, 11, NetworkConfig(hidden=(), base=base), "kan", seed=0)
    if found.base is not None:
        found.base.shrinkage = 1e-6
        found.base.add(found.base.sums_of([(torch.from_numpy(X), torch.from_numpy(Y))]))
    return found


def test_with_a_base_of_lda_distance_is_mahalanobis():
    means = np.stack([UNIT[c == Y].mean(0) for c in range(10)])
    within = UNIT - means[Y]
    covariance = within.T @ within / (len(X) - 10)
    found = Reference.of(collaborator("lda"), {}).distances(X[:20])
    expected = cdist(UNIT[:20], means, "mahalanobis", VI=np.linalg.inv(covariance))
    np.testing.assert_allclose(found[:, :10], expected, rtol=1e-2)
    assert np.isinf(found[:, 10]).all()  # a label that no row has


@pytest.mark.parametrize("base", ["means", "none"])
def test_distance_falls_back_to_unit_vectors_and_means(base):
    rows, labels = (UNIT, Y) if base == "means" else (UNIT[:50], Y[:50])
    means = np.stack([rows[labels == c].mean(0) for c in range(10)])
    found = Reference.of(collaborator(base), {"memory": MEMORY}).distances(X[:20])
    np.testing.assert_allclose(found[:, :10], cdist(UNIT[:20], means), rtol=1e-3, atol=1e-4)


def test_neighbours_are_those_of_scikit_learn():
    cosine, label = Reference.of(collaborator("none"), {"memory": MEMORY}).neighbours(X[60:80])
    theirs = NearestNeighbors(n_neighbors=NEIGHBOURS, metric="cosine").fit(UNIT[:50])
    distance, index = theirs.kneighbors(UNIT[60:80])
    np.testing.assert_allclose(cosine, distance, atol=1e-5)
    np.testing.assert_array_equal(label, Y[:50][index])
