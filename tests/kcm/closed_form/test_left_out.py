"""Ridge regression and its left-out predictions against scikit-learn, refitted once per unit."""

import numpy as np
import pytest
import torch
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict

from kcm.closed_form import left_out
from kcm.closed_form.gcv import RidgeSums
from kcm.closed_form.left_out import (
    class_mean_scores,
    gram_ridge_left_out,
    ridge_left_out,
    without_own_class,
)
from kcm.metrics.intervals import Units


def _data(num_rows, num_inputs, seed=0):
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(num_rows, num_inputs)) + 3
    return inputs, inputs[:, 0] - 2 * inputs[:, 1] + rng.normal(size=num_rows) * 2


def _strength(inputs, target, fit):
    """The ridge strength behind a fit, from its normal equations."""
    centred = inputs - inputs.mean(0)
    weight = fit.weight[:, 0]
    residual = target - target.mean() - centred @ weight
    return (centred.T @ residual) @ weight / (weight @ weight)


@pytest.mark.parametrize(("num_rows", "num_inputs"), [(60, 8), (30, 50)], ids=["tall", "wide"])
def test_the_fit_is_scikit_learns(num_rows, num_inputs):
    inputs, target = _data(num_rows, num_inputs)
    fit = ridge_left_out(inputs.__getitem__, target[:, None], Units(None, num_rows))
    theirs = Ridge(_strength(inputs, target, fit), tol=1e-12).fit(inputs, target)
    np.testing.assert_allclose(fit.weight[:, 0], theirs.coef_, rtol=1e-6, atol=1e-9)
    assert fit.constant[0] == pytest.approx(theirs.intercept_)


@pytest.mark.parametrize(("num_rows", "num_inputs"), [(60, 8), (30, 50)], ids=["tall", "wide"])
@pytest.mark.parametrize("sizes", [[1], [1, 2, 3]], ids=["rows", "groups"])
def test_left_out_predictions_equal_refits(num_rows, num_inputs, sizes):
    inputs, target = _data(num_rows, num_inputs)
    group = np.repeat([f"g{i}" for i in range(num_rows)], np.resize(sizes, num_rows))[:num_rows].astype(object)
    fit = ridge_left_out(inputs.__getitem__, target[:, None], Units(group, num_rows))
    model = Ridge(_strength(inputs, target, fit), solver="cholesky")
    refits = cross_val_predict(model, inputs, target, cv=LeaveOneGroupOut(), groups=group)
    means = cross_val_predict(DummyRegressor(), inputs, target, cv=LeaveOneGroupOut(), groups=group)
    np.testing.assert_allclose(fit.left_out[:, 0], refits - means + target.mean(), rtol=1e-5, atol=1e-6)


def test_noise_is_not_predicted_despite_interpolation():
    rng = np.random.default_rng(0)
    inputs, target = rng.normal(size=(60, 400)), rng.normal(size=60)
    left_out = ridge_left_out(inputs.__getitem__, target[:, None], Units(None, 60)).left_out[:, 0]
    assert np.square(left_out - target).mean() > 0.95 * target.var()


def test_identical_rows_are_not_ordered_by_their_target():
    rng = np.random.default_rng(0)
    inputs, target = np.ones((50, 3)), (rng.random(50) < 0.4).astype(float)
    np.testing.assert_allclose(
        ridge_left_out(inputs.__getitem__, target[:, None], Units(None, 50)).left_out, target.mean()
    )


def test_the_strength_has_the_least_left_out_error():
    inputs, target = _data(80, 10)
    fit = ridge_left_out(inputs.__getitem__, target[:, None], Units(None, 80))
    best = np.square(fit.left_out[:, 0] - target).sum()
    centred, y = inputs - inputs.mean(0), target - target.mean()
    for strength in np.geomspace(1e-3, 1e3, 30):
        hat = 1 / 80 + centred @ np.linalg.solve(centred.T @ centred + strength * np.eye(10), centred.T)
        error = np.square((y - hat @ y) / (1 - np.diag(hat))).sum()
        assert best <= error * 1.02  # the grid of strengths is coarser than this one


@pytest.mark.parametrize("grouped", [False, True])
def test_inner_products_alone_give_the_same_fit(grouped):
    inputs, target = _data(40, 60)
    targets = np.stack([target, -(target**2)], -1)
    units = Units(np.repeat(np.arange(20), 2).astype(object) if grouped else None, 40)
    fit, gram_fit = (
        ridge_left_out(inputs.__getitem__, targets, units),
        gram_ridge_left_out(inputs @ inputs.T, targets, units),
    )
    new = np.random.default_rng(1).normal(size=(5, 60))
    predicted = gram_fit.mean + (new - inputs.mean(0)) @ inputs.T @ gram_fit.dual
    np.testing.assert_allclose(predicted, new @ fit.weight + fit.constant, rtol=1e-6)
    np.testing.assert_allclose(gram_fit.left_out, fit.left_out, rtol=1e-6)
    np.testing.assert_allclose(gram_fit.dual.sum(0), 0, atol=1e-9)


@pytest.mark.parametrize("sizes", [[1], [1, 2, 3]], ids=["rows", "groups"])
def test_inputs_read_chunk_by_chunk_give_the_same(monkeypatch, sizes):
    inputs, target = _data(60, 8)
    targets = np.stack([target, target**2], 1)
    group = np.repeat([f"g{i}" for i in range(60)], np.resize(sizes, 60))[:60].astype(object)
    units = Units(np.random.default_rng(0).permutation(group), 60)  # rows of a group are not neighbours
    read = []
    whole = ridge_left_out(inputs.__getitem__, targets, units)
    monkeypatch.setattr(left_out, "CHUNK_ROWS", 7)
    streamed = ridge_left_out(lambda rows: (read.append(len(rows)), inputs[rows])[1], targets, units)
    for name in ("weight", "constant", "left_out"):
        np.testing.assert_allclose(getattr(streamed, name), getattr(whole, name), rtol=1e-7, atol=1e-9)
    assert max(read) <= 9
    assert sum(read) == 120


def test_class_of_identical_rows_scores_as_unlearned():
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(4), 10)
    inputs = rng.normal(size=(4, 12))[labels]
    inputs[labels > 0] += rng.normal(size=(30, 12))  # rows of class 0 are one and the same
    targets = 10.0 * np.eye(4)[labels]
    sums = RidgeSums(12, 4, 1)
    sums.add_rows(torch.from_numpy(inputs), torch.from_numpy(targets))
    ridge = 0.5 * sums.mean_eigenvalue * np.eye(12)

    def weight(rows):
        return np.linalg.solve(inputs[rows].T @ inputs[rows] + ridge, inputs[rows].T @ targets[rows])

    new = rng.normal(size=(5, 12))
    scores = torch.from_numpy(new @ weight(labels >= 0))
    (means,) = class_mean_scores(sums, [0.5])
    found = without_own_class(scores, torch.zeros(5, dtype=torch.int64), means, 10.0).numpy()
    assert np.isneginf(found[:, 0]).all()
    np.testing.assert_allclose(found[:, 1:], (new @ weight(labels > 0))[:, 1:])
