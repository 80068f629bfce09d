"""Temperature and calibration error against closed forms, a fine grid and scikit-learn."""

import numpy as np
import pytest
from scipy.special import logit, softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from kcm.errors import DataError
from kcm.metrics.calibration import (
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability,
)


def _sample(num_rows=4000, num_labels=4, seed=0):
    rng = np.random.default_rng(seed)
    logits_NC = rng.normal(size=(num_rows, num_labels)) * 2
    labels = np.array([rng.choice(num_labels, p=p) for p in softmax(logits_NC, axis=1)])
    return logits_NC, labels


def test_the_temperature_of_two_kinds_of_rows_is_the_closed_form():
    # Gap 2 and right in 7 rows of 10: the NLL is least where sigmoid(2 / T) = 0.7.
    logits_NC = np.tile([2.0, 0.0], (10, 1))
    labels = np.array([0] * 7 + [1] * 3)
    assert fit_temperature(logits_NC, labels) == pytest.approx(2 / logit(0.7), rel=1e-4)


def test_no_temperature_on_a_fine_grid_is_more_likely():
    logits_NC, labels = _sample(num_rows=300, seed=3)
    best = negative_log_likelihood(logits_NC / fit_temperature(logits_NC, labels), labels)
    assert all(best <= negative_log_likelihood(logits_NC / T, labels) + 1e-9 for T in np.geomspace(0.05, 50, 400))


def test_the_likelihood_is_that_of_scikit_learn():
    logits_NC, labels = _sample(num_rows=200)
    assert negative_log_likelihood(logits_NC, labels) == pytest.approx(log_loss(labels, softmax(logits_NC, axis=1)))


def test_all_right_gives_low_and_all_wrong_high_temperature():
    logits_NC = np.tile([1.0, 0.0], (5, 1))
    assert 0.01 <= fit_temperature(logits_NC, np.zeros(5, int)) < 0.1
    assert fit_temperature(logits_NC, np.ones(5, int)) == pytest.approx(100, rel=1e-2)


def test_rows_whose_label_cannot_be_answered_say_nothing():
    logits_NC, labels = _sample(num_rows=500)
    unseen_NC = np.vstack([logits_NC, [[0.0, 1.0, 2.0, -np.inf]] * 50])
    assert fit_temperature(unseen_NC, np.append(labels, [3] * 50)) == fit_temperature(logits_NC, labels)


def test_reliability_is_that_of_scikit_learn():
    rng = np.random.default_rng(1)
    confidence = rng.beta(4, 2, size=3000)
    correct = rng.random(3000) < confidence**2
    bins = reliability(confidence, correct, num_bins=10)
    accuracy, mean = calibration_curve(correct, confidence, n_bins=10)
    np.testing.assert_allclose([row["accuracy"] for row in bins], accuracy)
    np.testing.assert_allclose([row["confidence"] for row in bins], mean)
    assert sum(row["count"] for row in bins) == 3000


def test_calibration_error_is_the_weighted_gap_worked_by_hand():
    # Bin (0.5, 1]: three rows of mean 0.8, one right of three. Bin [0, 0.5]: one row at 0.5, right.
    error = expected_calibration_error([0.7, 0.8, 0.9, 0.5], [1, 0, 0, 1], num_bins=2)
    assert error == pytest.approx(3 / 4 * abs(0.8 - 1 / 3) + 1 / 4 * 0.5)


@pytest.mark.parametrize("bad", [1.2, -0.1, np.nan])
def test_a_confidence_outside_the_unit_interval_is_named(bad):
    with pytest.raises(DataError, match="row 1 holds"):
        reliability([0.5, bad], [1, 1])
