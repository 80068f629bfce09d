"""Recall at K against rankings written out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.galleries.gallery import first_right, recall_at

SCORES = [[0.9, 0.5, 0.1, 0.3], [0.9, 0.5, 0.1, 0.3], [0.2, 0.2, 0.2, 0.2], [0.9, 0.5, 0.1, 0.3]]
RELEVANT = np.array([[1, 0, 0, 0], [0, 0, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0]], dtype=bool)


def test_the_first_of_several_right_items_counts_and_ties_count_against():
    assert first_right(SCORES, RELEVANT).tolist() == [0, 2, 3, 4]


@pytest.mark.parametrize(("k", "share"), [(1, 0.25), (2, 0.25), (3, 0.5), (4, 0.75), (10, 1.0)])
def test_recall_grows_with_k(k, share):
    assert recall_at([0, 2, 3, 4], k) == share


def test_nobody_asked_is_no_recall():
    assert recall_at([], 1) is None
