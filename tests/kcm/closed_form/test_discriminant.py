"""Discriminants from sums are those that scikit-learn fits to the rows themselves."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neighbors import NearestCentroid

from kcm.closed_form.discriminant import linear_discriminant, nearest_mean

X, Y = load_digits(return_X_y=True)
X = X + np.random.default_rng(0).normal(size=X.shape)  # corners of the pictures are always empty
KEEP = np.r_[np.flatnonzero(Y == 3)[:20], np.flatnonzero(Y != 3)]  # of one class few rows


def sums(x: np.ndarray, y: np.ndarray, num_labels: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    one_hot, x_NP = torch.eye(num_labels, dtype=torch.float64)[y], torch.from_numpy(x)
    return one_hot.sum(0), one_hot.T @ x_NP, (x_NP.T @ x_NP).triu()


@pytest.mark.parametrize("shrinkage", [1e-9, 0.3])
def test_lda_is_scikit_learn_s_with_equal_priors(shrinkage) -> None:
    x, y = X[KEEP], Y[KEEP]
    weight, bias = linear_discriminant(*sums(x, y, 10), shrinkage)
    # scikit-learn shrinks each class's covariance, with features standardised: without shrinkage its fit is the oracle,
    # of which the covariance is divided by N; with shrinkage the formula itself is.
    ours = torch.from_numpy(X) @ weight.T + bias
    if shrinkage < 1e-6:
        fitted = LinearDiscriminantAnalysis(solver="svd", priors=np.full(10, 0.1)).fit(x, y)
        theirs = fitted.decision_function(X) * (len(x) - 10) / len(x)
    else:
        means = np.stack([x[y == c].mean(0) for c in range(10)])
        within = x - means[y]
        pooled = within.T @ within / (len(x) - 10)
        shrunk = 0.7 * pooled + 0.3 * np.trace(pooled) / 64 * np.eye(64)
        solved = np.linalg.solve(shrunk, means.T)
        theirs = X @ solved - (means.T * solved).sum(0) / 2
    differences = [torch.as_tensor(scores) - torch.as_tensor(scores)[:, :1] for scores in (ours, theirs)]
    torch.testing.assert_close(*differences, atol=1e-5, rtol=1e-5)


def test_nearest_mean_is_scikit_learn_s() -> None:
    weight, bias = nearest_mean(*sums(X[KEEP], Y[KEEP], 10)[:2])
    ours = (torch.from_numpy(X) @ weight.T + bias).argmax(1).numpy()
    assert (ours == NearestCentroid().fit(X[KEEP], Y[KEEP]).predict(X)).all()


def test_classes_without_rows_get_nothing_and_change_nothing() -> None:
    ten, twelve = (linear_discriminant(*sums(X, Y, labels), 0.1) for labels in (10, 12))
    for fewer, more in zip(ten, twelve, strict=True):
        torch.testing.assert_close(more[:10], fewer)
        assert not more[10:].any()
