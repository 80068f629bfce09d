"""The weight of a second ranker is the one that the queries were made with."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.galleries.fusion import TwoRankers, fit_weight, standardised


def drawn(weight: float, num_items: int = 8, seed: int = 0) -> TwoRankers:
    """Queries whose right item is drawn by the softmax of 2 first + 2 weight second: a Gumbel race."""
    rng = np.random.default_rng(seed)
    first, second = rng.standard_normal((2, 4000, num_items))
    right = (2 * first + 2 * weight * second + rng.gumbel(size=first.shape)).argmax(1)
    return TwoRankers(standardised(first), standardised(second), np.arange(num_items) == right[:, None])


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.5])
def test_the_weight_is_found_again(weight: float) -> None:
    # Scores are standardised within the query, which blurs the weight a little.
    assert fit_weight([drawn(weight)]) == pytest.approx(weight, abs=0.06 + 0.05 * weight)


def test_lists_of_different_lengths_are_fitted_together() -> None:
    assert fit_weight([drawn(0.3), drawn(0.3, num_items=20, seed=1)]) == pytest.approx(0.3, abs=0.06)


def test_a_ranker_that_misleads_is_not_listened_to() -> None:
    assert fit_weight([drawn(-1.0)]) == 0.0


def test_queries_without_a_right_item_tell_nothing() -> None:
    usable = drawn(0.3)
    without_right_items = usable._replace(relevant=np.zeros_like(usable.relevant))
    assert fit_weight([without_right_items]) == 0.0
    assert fit_weight([usable, without_right_items]) == fit_weight([usable])


def test_equal_scores_stay_equal_numbers() -> None:
    assert not standardised(np.full((2, 3), 7.0)).any()
