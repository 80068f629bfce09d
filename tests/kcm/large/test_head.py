"""The head is scikit-learn's, its strength is chosen on train rows, and no row is judged by a head that saw it."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from kcm.errors import ArtefactError, DataError
from kcm.large import LinearHead, fit_head


def unit_vectors(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def digits():
    """400 digits as unit vectors."""
    features, labels = load_digits(return_X_y=True)
    return unit_vectors(features[:400]), labels[:400]


def own_groups(num_rows: int) -> list[str]:
    return [f"row {i}" for i in range(num_rows)]


@pytest.mark.parametrize("classes", [10, 2])
def test_probabilities_are_those_of_scikit_learn(classes, digits):
    features, labels = digits[0][digits[1] < classes], digits[1][digits[1] < classes]
    fit = fit_head(features, labels, own_groups(len(labels)), classes, grid=[10.0], num_folds=3)
    expected = LogisticRegression(C=10.0, max_iter=1000).fit(features, labels).predict_proba(features)
    np.testing.assert_allclose(fit.head.probabilities(features), expected, atol=2e-3)
    assert fit.head.weight_CD.shape == (classes, 64)


def test_the_strength_that_predicts_unseen_rows_best_is_chosen(digits):
    rng = np.random.default_rng(0)
    noise = unit_vectors(rng.normal(size=(200, 20)))
    coin = rng.integers(0, 2, 200)
    assert fit_head(noise, coin, own_groups(200), 2, grid=[1e-3, 1e3]).c == 1e-3
    assert fit_head(*digits, own_groups(400), 10, grid=[1e-3, 1e2]).c == 1e2


def test_out_of_fold_outputs_never_saw_the_group():
    """Promise: out of fold outputs never come from a head that saw the group."""
    # Labels are a coin per group and features give the group away: in-sample a head is right, out of fold it cannot be.
    rng = np.random.default_rng(1)
    coin = rng.integers(0, 2, 80)
    features = np.repeat(unit_vectors(rng.normal(size=(80, 200))), 3, axis=0)
    labels, groups = np.repeat(coin, 3), [f"group {i // 3}" for i in range(240)]
    fit = fit_head(features, labels, groups, 2, grid=[1e4])
    assert (fit.head.probabilities(features).argmax(1) == labels).mean() > 0.99
    assert (fit.out_of_fold_NC.argmax(1) == labels).mean() < 0.7
    torn = fit_head(features, labels, own_groups(240), 2, grid=[1e4])
    assert (torn.out_of_fold_NC.argmax(1) == labels).mean() > 0.9


def test_classes_without_train_rows_are_never_answered(digits):
    features, labels = digits
    known = labels < 8
    fit = fit_head(features[known], labels[known], own_groups(int(known.sum())), 10, grid=[10.0])
    assert fit.head.probabilities(features)[:, 8:].max() == 0
    assert np.isfinite(fit.head.weight_CD).all()
    assert np.isfinite(fit.head.bias_C).all()


def test_a_grown_head_says_of_its_own_classes_what_it_said(digits):
    """Promise: the odds among known classes stay, and the added ones are learned as scikit-learn learns all of them."""
    features, labels = digits
    known, fresh = labels < 8, np.arange(400) >= 300
    head = fit_head(features[known & ~fresh], labels[known & ~fresh], own_groups((known & ~fresh).sum()), 8).head
    grown = fit_head(features[~fresh], labels[~fresh], own_groups(300), 10, known=head)
    np.testing.assert_array_equal(grown.head.first(8).probabilities(features), head.probabilities(features))
    anew = fit_head(features[~fresh], labels[~fresh], own_groups(300), 10).head
    right, right_anew = (
        (each.probabilities(features[fresh]).argmax(1) == labels[fresh]).mean() for each in (grown.head, anew)
    )
    assert right >= right_anew - 0.03
    assert (grown.out_of_fold_NC.argmax(1) == labels[~fresh])[~known[~fresh]].mean() > 0.7


def test_a_head_survives_the_disk(digits, tmp_path):
    head = fit_head(*digits, own_groups(400), 10, grid=[1.0]).head
    head.save(tmp_path / "head.safetensors")
    loaded = LinearHead.load(tmp_path / "head.safetensors")
    np.testing.assert_array_equal(loaded.probabilities(digits[0]), head.probabilities(digits[0]))
    (tmp_path / "head.safetensors").write_bytes(b"damaged")
    with pytest.raises(ArtefactError, match="not a large-model head"):
        LinearHead.load(tmp_path / "head.safetensors")


def test_rows_that_cannot_be_fitted_are_refused(digits):
    features, labels = digits[0].copy(), digits[1]
    with pytest.raises(DataError, match="two classes and two groups"):
        fit_head(features, np.zeros_like(labels), own_groups(400), 10)
    with pytest.raises(DataError, match="two classes and two groups"):
        fit_head(features, labels, ["one"] * 400, 10)
    features[7, 3] = np.nan
    with pytest.raises(DataError, match="features of 1 rows are not finite, the first is row 7"):
        fit_head(features, labels, own_groups(400), 10)
