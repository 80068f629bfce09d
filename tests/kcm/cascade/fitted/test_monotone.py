"""Monotone curves: scikit-learn's logistic regression where nothing is bounded, and never against their direction."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from kcm.cascade.curves import fit_monotone, monotone_kan, unit_folds
from kcm.kan.basis import spline_basis
from kcm.metrics.intervals import Units


def curve_of(fit, inputs):
    kan, constant = fit
    return constant + kan(torch.from_numpy(inputs)).numpy()[:, 0]


def test_without_directions_is_penalised_logistic_regression():
    rng = np.random.default_rng(0)
    inputs = rng.uniform(-1, 1, (400, 2))
    target = rng.random(400) < expit(2 * inputs[:, 0] - 3 * inputs[:, 1] ** 2)
    fit = fit_monotone(inputs, [0, 0], target.astype(float), strength=0.5)

    splines = spline_basis(torch.from_numpy(inputs), monotone_kan(2).kan_layers[0].grid).numpy()
    steps = np.stack([splines[:, k:].sum(1) for k in range(1, 7)], -1).reshape(400, -1)  # [N, F * 6]
    second = np.diff(np.eye(6), axis=0)
    root = np.real(sqrtm(2 * 0.5 * np.kron(np.eye(2), second.T @ second + 0.1 * np.eye(6))))
    theirs = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(steps @ np.linalg.inv(root), target)
    np.testing.assert_allclose(curve_of(fit, inputs), theirs.decision_function(steps @ np.linalg.inv(root)), atol=2e-3)


@pytest.mark.parametrize("direction", [1, -1])
def test_no_curve_goes_against_its_direction(direction):
    rng = np.random.default_rng(1)
    inputs = rng.uniform(-1, 1, (300, 2))
    target = rng.random(300) < expit(
        np.sin(4 * inputs[:, 0]) - 2 * direction * inputs[:, 1]
    )  # up and down; and against
    fit = fit_monotone(inputs, [direction, direction], target.astype(float), strength=0.01)
    points = np.linspace(-1, 1, 201)
    for column in range(2):
        along = np.zeros((201, 2))
        along[:, column] = points
        assert (direction * np.diff(curve_of(fit, along)) >= -1e-9).all()
    np.testing.assert_allclose(fit[0](torch.from_numpy(inputs)).numpy().mean(), 0, atol=1e-9)


def test_folds_are_about_equal_and_keep_units_whole():
    group = np.array([f"g{i // 4}" for i in range(200)], dtype=object)
    fold = unit_folds(Units(group, 200), seed=0)
    assert all(len(set(fold[group == name])) == 1 for name in set(group))
    assert np.bincount(fold).tolist() == [40] * 5
    assert sorted(np.bincount(unit_folds(Units(None, 12), seed=0))) == [2, 2, 2, 3, 3]
