"""KANClassifier is an estimator as scikit-learn's own checks want it, and forgets nothing over calls."""

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris, load_wine
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from kcm.api.classifier import KANClassifier
from kcm.errors import ConfigError


@parametrize_with_checks([KANClassifier(), KANClassifier("slda")])
def test_the_checks_of_scikit_learn_pass(estimator: Any, check: Any) -> None:
    check(estimator)


def test_what_is_learned_in_calls_is_what_one_call_learns() -> None:
    """Promise: the closed form forgets nothing, and classes that come later change nothing but by their rows."""
    X, y = load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(X))
    X, first = X[order], np.array(["setosa", "versicolor", "virginica"])[y[order]]
    second = np.where(X[:, 0] > 6, "amazing", "setosa")  # of the same inputs, so that the first call scales as both do
    strength = {"name": "analytic", "strength": 1e-3}
    whole = KANClassifier(strength).fit(np.concatenate([X, X]), np.concatenate([first, second]))
    parts = KANClassifier(strength).partial_fit(X, first).partial_fit(X[:70], second[:70])
    parts.partial_fit(X[70:], second[70:])
    assert parts.classes_.tolist() == ["amazing", "setosa", "versicolor", "virginica"]
    np.testing.assert_allclose(parts.predict_proba(X), whole.predict_proba(X), atol=1e-9)


def test_announced_classes_without_rows_are_never_answered() -> None:
    X, y = load_iris(return_X_y=True)
    announced = KANClassifier().partial_fit(X, y, classes=[0, 1, 2, 7])
    assert announced.predict_proba(X).shape == (len(X), 4)
    assert set(announced.predict(X)) == {0, 1, 2}


@pytest.mark.parametrize("learner", ["finetune", "replay", {"name": "examples.learners.ewc:EwcConfig"}, "joint"])
def test_learners_that_take_steps_fit(learner: Any) -> None:
    X, y = load_wine(return_X_y=True)
    classifier = KANClassifier(learner, hidden=(8,), num_epochs=30, learning_rate=1e-2)
    assert classifier.fit(X, y).score(X, y) > 0.95


def test_a_call_that_is_refused_changes_nothing() -> None:
    X, y = load_iris(return_X_y=True)
    classifier = KANClassifier("joint", num_epochs=3).partial_fit(X[:100], y[:100])
    before = classifier.predict_proba(X)
    with pytest.raises(ConfigError, match="needs all rows so far, but they are not kept"):
        classifier.partial_fit(X[100:], y[100:])
    assert classifier.classes_.tolist() == [0, 1]
    np.testing.assert_array_equal(classifier.predict_proba(X), before)


def test_a_failed_fit_leaves_nothing_of_the_last_one() -> None:
    """Promise: after an error of `fit` the classifier is unfitted, and the next call starts from its own rows."""
    X, y = load_iris(return_X_y=True)
    classifier = KANClassifier().fit(X, y)
    with pytest.raises(ConfigError):
        classifier.set_params(grid_size=0).fit(X, y)
    with pytest.raises(NotFittedError):
        classifier.predict(X)
    assert classifier.set_params(grid_size=5).partial_fit(X[:100], y[:100]).classes_.tolist() == [0, 1]
    assert set(classifier.predict(X)) == {0, 1}


def test_matches_logistic_regression_where_curves_matter() -> None:
    X = np.random.default_rng(0).normal(size=(600, 3))
    y = (X[:, 0] ** 2 + np.sin(2 * X[:, 1]) > 1).astype(int)
    linear = make_pipeline(StandardScaler(), LogisticRegression())
    assert cross_val_score(KANClassifier(), X, y).mean() > cross_val_score(linear, X, y).mean() + 0.1
