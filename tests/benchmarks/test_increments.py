"""The rivals of benchmarks/increments.py learn class by class what they would learn of all rows at once."""

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neighbors import NearestCentroid

from benchmarks.rivals.increments import HEADS, head

NUM_CLASSES, DIM = 6, 8


@pytest.fixture
def rows() -> tuple[np.ndarray, np.ndarray]:
    """Rows at unit length about the means of their classes, and their classes."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(NUM_CLASSES), 40)
    features = random.normal(size=(NUM_CLASSES, DIM))[labels] + random.normal(size=(len(labels), DIM))
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32), labels


@pytest.mark.parametrize("name", HEADS)
def test_tasks_teach_what_all_rows_teach(name, rows) -> None:
    """Promise: three tasks of two classes end with the answers of one task; earlier only learned classes answer."""
    features, labels = rows
    by_tasks, at_once = (head(name, DIM, NUM_CLASSES, 48, 0) for _ in range(2))
    for task in range(3):
        own = labels // 2 == task
        by_tasks.learn(features[own], labels[own])
        assert by_tasks.answers(features).max() < 2 * (task + 1)
    at_once.learn(features, labels)
    np.testing.assert_array_equal(by_tasks.answers(features), at_once.answers(features))


@pytest.mark.parametrize(
    ("name", "oracle"), [("ncm", NearestCentroid()), ("lda", LinearDiscriminantAnalysis("lsqr", shrinkage=0.01))]
)
def test_discriminants_answer_as_scikit_learn(name, oracle, rows) -> None:
    """Promise: nearest means and LDA on the encoder's features agree with scikit-learn on at least 99% of rows."""
    features, labels = rows
    learner = head(name, DIM, NUM_CLASSES, 48, 0)
    learner.learn(features, labels)
    assert np.mean(learner.answers(features) == oracle.fit(features, labels).predict(features)) >= 0.99
