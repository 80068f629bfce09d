"""Boosted trees: scikit-learn's estimates, without its pickles; left-out estimates that never saw their row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.ensemble import GradientBoostingRegressor

from kcm.errors import DataError
from kcm.metrics.intervals import Units
from kcm.routing.routers import boosting
from kcm.routing.routers.boosting import BoostedTrees, fit_trees
from kcm.routing.routers.inputs import RouterInputs


def inputs(num_rows: int, *, seed: int = 0) -> tuple[RouterInputs, np.ndarray]:
    """The target is one where two numbers are large, beside the effect of a category."""
    rng = np.random.default_rng(seed)
    numbers, encoding = rng.normal(size=(num_rows, 2)), rng.normal(size=(num_rows, 60))
    category = rng.integers(4, size=num_rows)
    target = (numbers > 0).all(1) + 0.2 * category + 0.1 * rng.normal(size=num_rows)
    return RouterInputs(numbers, encoding, csr_array(np.eye(4)[category]), csr_array((num_rows, 0))), target


def test_estimates_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[GradientBoostingRegressor] = []

    class Kept(GradientBoostingRegressor):
        def fit(self, *given: np.ndarray) -> GradientBoostingRegressor:
            fitted.append(self)
            return super().fit(*given)

    monkeypatch.setattr(boosting, "GradientBoostingRegressor", Kept)
    rows, target = inputs(600)
    trees = BoostedTrees(*rows.widths).fit(rows, target, Units(None, 600))
    fresh, _ = inputs(100, seed=1)
    read_NI = trees._read(fresh, fresh.category_NG @ trees.category_gain.numpy())
    np.testing.assert_allclose(trees.estimate(fresh), target.mean() + fitted[0].predict(read_NI), atol=1e-12)


def test_products_and_categories_are_found_and_kept_as_tensors() -> None:
    rows, target = inputs(1000)
    trees, left_out = fit_trees(rows, target)
    fresh, expected = inputs(300, seed=1)
    assert np.corrcoef(left_out, target)[0, 1] > 0.9
    assert np.corrcoef(trees.estimate(fresh), expected)[0, 1] > 0.9
    again = BoostedTrees(*rows.widths)
    again.load_state_dict({name: torch.clone(tensor) for name, tensor in trees.state_dict().items()})
    np.testing.assert_array_equal(again.estimate(fresh), trees.estimate(fresh))


def test_the_target_of_a_unit_moves_none_of_its_left_out_estimates() -> None:
    rows, target = inputs(200)
    group = np.array([f"unit {n % 40}" for n in range(200)], dtype=object)
    mine = group == "unit 3"
    moved = np.where(mine, target + 100, target)
    _, left_out = fit_trees(rows, target, group)
    _, other = fit_trees(rows, moved, group)
    np.testing.assert_array_equal(other[mine], left_out[mine])


def test_noise_of_many_categories_is_not_learned() -> None:
    rng = np.random.default_rng(0)
    category = csr_array(np.eye(300)[rng.integers(300, size=600)])
    rows = RouterInputs(rng.normal(size=(600, 1)), np.zeros((600, 0)), category, csr_array((600, 0)))
    target = rng.choice([-1.0, 0.0, 1.0], 600)
    _, left_out = fit_trees(rows, target)
    assert abs(np.corrcoef(left_out, target)[0, 1]) < 0.1


def test_few_rows_and_other_widths() -> None:
    rows, target = inputs(3)
    trees, left_out = fit_trees(rows, target)
    assert np.isfinite(left_out).all()
    with pytest.raises(DataError, match="at least two rows or groups, got 1"):
        fit_trees(rows, target, np.array(["one"] * 3, dtype=object))
    with pytest.raises(DataError, match=r"the trees read \(2, 60, 4, 0\)"):
        trees.estimate(RouterInputs(np.zeros((1, 1)), np.zeros((1, 60)), csr_array((1, 4)), csr_array((1, 0))))
