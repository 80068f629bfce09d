"""Ridge regression from sums is the one on all rows, and its cross-validation is the textbook's."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from kcm.closed_form.gcv import RidgeSums, ridge_by_gcv
from kcm.errors import DataError


def problem(num_rows: int = 60, num_inputs: int = 12, num_targets: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy linear targets, with inputs that share a large constant part, as splines do."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(num_rows, num_inputs)) + 3
    targets = inputs @ rng.normal(size=(num_inputs, num_targets)) + rng.normal(size=(num_rows, num_targets))
    return torch.from_numpy(inputs), torch.from_numpy(targets)


def sums_of(inputs: torch.Tensor, targets: torch.Tensor, num_models: int = 1) -> RidgeSums:
    sums = RidgeSums(inputs.shape[1], targets.shape[1], num_models)
    sums.add_rows(inputs, targets)
    return sums


def penalty(inputs: torch.Tensor, strength: float) -> float:
    return strength * float(inputs.square().sum()) / inputs.shape[1]


def brute_force_gcv(inputs: torch.Tensor, targets: torch.Tensor, strength: float) -> tuple[float, float]:
    """GCV from the hat matrix itself, and its trace."""
    x, y = inputs.numpy(), targets.numpy()
    hat = x @ np.linalg.inv(x.T @ x + penalty(inputs, strength) * np.eye(x.shape[1])) @ x.T
    residual = np.mean(np.sum((y - hat @ y) ** 2, axis=1))
    return residual / (1 - np.trace(hat) / len(x)) ** 2, float(np.trace(hat))


@pytest.mark.parametrize("num_rows", [60, 9])
@pytest.mark.parametrize("strength", [1e-6, 1e-4, 1e-2, 1.0])
def test_weights_are_scikit_learn_s_and_gcv_the_hat_matrix_s(num_rows, strength) -> None:
    """With more rows than inputs, and with fewer, when the rank of the sums is what is solved for."""
    inputs, targets = problem(num_rows)
    fit = ridge_by_gcv(sums_of(inputs, targets), strength)[0]
    oracle = Ridge(alpha=penalty(inputs, strength), fit_intercept=False).fit(inputs, targets)
    np.testing.assert_allclose(fit.weight_KP, oracle.coef_, rtol=1e-8, atol=1e-10)
    gcv, trace = brute_force_gcv(inputs, targets, strength)
    assert fit.degrees_of_freedom == pytest.approx(trace, rel=1e-6)
    if strength > 1e-6:  # below, nine rows are fitted exactly
        assert fit.gcv == pytest.approx(gcv, rel=1e-5)


def test_the_chosen_strength_has_the_least_gcv_of_all_candidates() -> None:
    inputs, targets = problem()
    targets[:, 2:] = torch.randn(60, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)  # mere noise
    chosen = ridge_by_gcv(sums_of(inputs, targets, num_models=2))
    assert chosen[0].strength < chosen[1].strength  # noise asks for a stronger penalty
    for fit, part in zip(chosen, targets.chunk(2, 1), strict=True):
        candidates = 10.0 ** np.arange(-6, 2.01, 0.5)
        best = min(candidates, key=lambda strength: brute_force_gcv(inputs, part, strength)[0])
        assert fit.strength == pytest.approx(best)
        oracle = Ridge(alpha=penalty(inputs, best), fit_intercept=False).fit(inputs, part)
        np.testing.assert_allclose(fit.weight_KP, oracle.coef_, rtol=1e-8)


def test_repeated_rows_fewer_than_inputs_are_not_fitted_exactly() -> None:
    rng = np.random.default_rng(2)
    inputs = torch.from_numpy(rng.normal(size=(40, 60)))
    targets = inputs[:, :1] + torch.from_numpy(rng.normal(size=(40, 1)))
    repeated = sums_of(torch.cat([inputs, inputs[:20]]), torch.cat([targets, targets[:20]]))
    chosen = ridge_by_gcv(repeated)[0]
    assert ridge_by_gcv(repeated, 1e-6)[0].gcv < chosen.gcv  # the textbook's, misled
    assert chosen.degrees_of_freedom <= 0.9 * 40


def test_sums_of_parts_add_up_and_survive_their_state(tmp_path) -> None:
    inputs, targets = problem()
    whole, total = sums_of(inputs, targets, 2), RidgeSums(12, 4, 2)
    for rows in (slice(50, 60), slice(0, 0), slice(0, 17), slice(17, 50)):
        total.add(sums_of(inputs[rows], targets[rows], 2))
    torch.save(total.state_dict(), tmp_path / "sums.pt")
    restored = RidgeSums.from_state(torch.load(tmp_path / "sums.pt", weights_only=True))
    for ours, theirs in zip(restored.tensors(), whole.tensors(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)
    assert float(restored.count) == 60
    upper = torch.from_numpy(np.triu(inputs.T.numpy() @ inputs.numpy()))
    torch.testing.assert_close(restored.gram_PP, upper)
    np.testing.assert_allclose(restored.squares_M, [targets[:, :2].square().sum(), targets[:, 2:].square().sum()])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_inputs_that_are_not_finite_are_refused(bad) -> None:
    inputs, targets = problem()
    inputs[3, 4] = bad
    with pytest.raises(DataError, match="NaN or infinity"):
        sums_of(inputs, targets)


def test_half_of_random_units_choose_the_strength() -> None:
    """Promise: the GCV over all units is within 2% of the searched one; the weights are of a ridge on all units."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(600, 20))
    units = torch.from_numpy(np.maximum(rows @ rng.normal(size=(20, 200)), 0))
    targets = torch.from_numpy(np.sin(rows[:, :3]) + rng.normal(size=(600, 3)))
    sums = sums_of(units, targets)
    fit, searched = ridge_by_gcv(sums, exchangeable=True)[0], ridge_by_gcv(sums)[0]
    assert fit.gcv < 1.02 * searched.gcv
    assert fit.strength != searched.strength
    oracle = Ridge(alpha=penalty(units, fit.strength), fit_intercept=False).fit(units, targets)
    np.testing.assert_allclose(fit.weight_KP, oracle.coef_, rtol=1e-8, atol=1e-10)
