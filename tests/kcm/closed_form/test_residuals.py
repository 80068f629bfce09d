"""The metric of residuals measures what two Mahalanobis distances among all inputs do, and forgets a class at once."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from kcm.closed_form.discriminant import residual_metric
from kcm.closed_form.gcv import RidgeSums

TARGET, NUM_INPUTS = 10.0, 12
LABELS = np.repeat(np.arange(4), [8, 10, 12, 20])
RNG = np.random.default_rng(0)
MEANS = RNG.normal(size=(4, NUM_INPUTS))
INPUTS = MEANS[LABELS] + RNG.normal(size=(50, NUM_INPUTS)) * (LABELS > 0)[:, None]  # rows of class 0 are alike
NEW = RNG.normal(size=(5, NUM_INPUTS))
RIDGE = 3.0 * np.eye(NUM_INPUTS)


def fitted(rows: NDArray[np.bool_], num_labels: int = 4) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights [P, C] of the regression on these rows, and its metric."""
    inputs, targets = INPUTS[rows], TARGET * np.eye(num_labels)[LABELS[rows]]
    sums = RidgeSums(NUM_INPUTS, num_labels, 1)
    sums.add_rows(torch.from_numpy(inputs), torch.from_numpy(targets))
    weight = np.linalg.solve(inputs.T @ inputs + RIDGE, inputs.T @ targets)
    return weight, residual_metric(sums, torch.from_numpy(weight.T.copy()), TARGET).numpy()


def test_equals_relative_mahalanobis_distance() -> None:
    weight, metric = fitted(LABELS >= 0)
    count, means = np.bincount(LABELS), np.stack([INPUTS[c == LABELS].mean(0) for c in range(4)])
    total = (INPUTS.T @ INPUTS + RIDGE) / len(INPUTS)
    pooled = total - (means.T * count) @ means / len(INPUTS)
    for label in range(4):
        residual, from_mean = NEW @ weight - TARGET * np.eye(4)[label], NEW - means[label]
        to_all = np.einsum("np,pq,nq->n", NEW, np.linalg.inv(total), NEW)
        to_class = np.einsum("np,pq,nq->n", from_mean, np.linalg.inv(pooled), from_mean)
        found = np.einsum("nc,cd,nd->n", residual, metric, residual)
        np.testing.assert_allclose(len(INPUTS) / count[label] - found, to_all - to_class, rtol=1e-4)


def test_class_of_identical_rows_loses_its_row_and_column() -> None:
    _, metric = fitted(LABELS >= 0)
    _, never_saw = fitted(LABELS > 0)
    num_rows = (LABELS > 0).sum()
    np.testing.assert_allclose(metric[1:, 1:] / len(LABELS), never_saw[1:, 1:] / num_rows, rtol=1e-4)


@pytest.mark.parametrize("num_labels", [5, 7])
def test_labels_without_rows_say_nothing(num_labels: int) -> None:
    _, metric = fitted(LABELS >= 0, num_labels)
    assert np.isfinite(metric).all()
    np.testing.assert_allclose(metric[:4, :4], fitted(LABELS >= 0)[1], rtol=1e-6)
    assert not metric[4:].any()
    assert not metric[:, 4:].any()
