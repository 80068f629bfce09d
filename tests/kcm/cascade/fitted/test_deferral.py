"""The deferral head: it learns who is right where, never looks better than it is, and survives its state dict."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from kcm.cascade.fitted import deferral
from kcm.cascade.fitted.deferral import DeferralHead, fit_deferral, gate_score, relative_cost
from kcm.cascade.forms import GateInputs
from kcm.cascade.frontier import Frontier
from kcm.cascade.gate import Gate
from kcm.cascade.scored import ScoredOutcomes
from kcm.errors import DataError


def seen(features, logits):
    return GateInputs(logits, logits, features)


def _world(num_rows, seed=0):
    """The large model is good where feature 0 is high, the small one where feature 1 is; the judge knows neither."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num_rows, 6)).astype(np.float32)
    logits = rng.normal(size=(num_rows, 3))
    large = rng.random(num_rows) < np.where(features[:, 0] > 0, 0.95, 0.5)
    small = rng.random(num_rows) < np.where(features[:, 1] > 0, 0.95, 0.4)
    return features, logits, small, large


def test_the_gain_is_estimated_where_it_is():
    features, logits, small, large = _world(2000)
    head, _ = fit_deferral(features, logits, small, large)
    fresh, fresh_logits, *_ = _world(2000, seed=1)
    gain = -head.score(seen(fresh, fresh_logits), 0.0)
    truth = np.where(fresh[:, 0] > 0, 0.95, 0.5) - np.where(fresh[:, 1] > 0, 0.95, 0.4)
    assert np.corrcoef(gain, truth)[0, 1] > 0.8
    assert gain.mean() == pytest.approx(truth.mean(), abs=0.05)


def test_the_deferral_gate_beats_a_confidence_that_knows_nothing():
    head, _ = fit_deferral(*_world(1500))
    features, logits, small, large = _world(3000, seed=1)
    areas = [
        Frontier.of(ScoredOutcomes(score=gate.score(features, logits), small_correct=small, large_correct=large)).area()
        for gate in (Gate(name="confidence"), Gate(name="deferral", head=head))
    ]
    assert areas[1] > areas[0] + 0.05


def test_out_of_fold_estimates_do_not_know_the_labels_of_their_rows():
    rng = np.random.default_rng(0)
    small, large = rng.random(300) < 0.5, np.ones(300, dtype=bool)  # pure noise
    for num_features in (10, 200):  # fewer and more coefficients than rows
        features, logits = rng.normal(size=(300, num_features)), rng.normal(size=(300, 3))
        _, estimates = fit_deferral(features, logits, small, large)
        assert 0.4 < roc_auc_score(~small, estimates[:, 0]) < 0.6


def test_rows_of_a_group_are_out_of_fold_together():
    rng = np.random.default_rng(0)
    features = np.repeat(rng.normal(size=(100, 20)), 4, axis=0)  # copies, which would give each other away
    small = np.repeat(rng.random(100) < 0.5, 4)
    group = np.repeat(np.arange(100).astype(str), 4).astype(object)
    logits, large = np.zeros((400, 0)), np.ones(400, dtype=bool)
    _, leaking = fit_deferral(features, logits, small, large)
    _, estimates = fit_deferral(features, logits, small, large, group=group)
    assert roc_auc_score(~small, leaking[:, 0]) > 0.9
    assert roc_auc_score(~small, estimates[:, 0]) < 0.65


def test_cost_is_estimated_relative_to_its_mean():
    features, logits, small, large = _world(1000)
    _, estimates = fit_deferral(features, logits, small, large, np.where(features[:, 2] > 0, 30.0, 10.0))
    assert estimates[:, 1].mean() == pytest.approx(1, abs=0.01)
    assert np.corrcoef(estimates[:, 1], features[:, 2] > 0)[0, 1] > 0.9


@pytest.mark.parametrize("cost", [None, np.zeros(4)], ids=["unknown", "free"])
def test_a_cost_that_says_nothing_is_one(cost):
    assert relative_cost(cost, 4).tolist() == [1, 1, 1, 1]


def test_a_constant_cost_shifts_all_scores_alike():
    features, logits, small, large = _world(400)
    head, estimates = fit_deferral(features, logits, small, large, np.full(400, 7.0))
    shift = gate_score(estimates, 0.25) - gate_score(estimates, 0.0)
    np.testing.assert_allclose(shift, 0.25, atol=1e-9)
    rows = seen(features, logits)
    np.testing.assert_allclose(head.score(rows, 0.25) - head.score(rows, 0), 0.25, atol=1e-9)


def test_no_cost_is_negative():
    assert gate_score(np.array([[0.3, -2.0], [0.3, 2.0]]), 0.5).tolist() == pytest.approx([-0.3, 0.7])


def test_the_state_dict_gives_back_the_head():
    features, logits, small, large = _world(200)
    head, _ = fit_deferral(features, logits, small, large)
    again = DeferralHead(6, 3)
    again.load_state_dict({name: value.clone() for name, value in head.state_dict().items()})
    np.testing.assert_array_equal(again.score(seen(features, logits), 0.1), head.score(seen(features, logits), 0.1))
    assert all(isinstance(value, torch.Tensor) for value in head.state_dict().values())


def test_it_works_without_features_or_without_a_judge():
    features, logits, small, large = _world(200)
    for known in ((None, logits), (features, np.zeros((200, 0)))):
        head, estimates = fit_deferral(*known, small, large)
        assert np.isfinite(head.score(seen(*known), 0.0)).all()
        assert estimates.shape == (200, 2)


@pytest.mark.parametrize("right", [True, False])
def test_models_that_are_always_alike_have_no_gain(right):
    features, logits, *_ = _world(100)
    same = np.full(100, right)
    _, estimates = fit_deferral(features, logits, same, same)
    np.testing.assert_allclose(estimates[:, 0], 0, atol=1e-12)


def test_infinitely_sure_rows_do_no_harm():
    features, logits, small, large = _world(200)
    logits[:20, 1:] = -np.inf
    head, estimates = fit_deferral(features, logits, small, large)
    assert np.isfinite(estimates).all()
    assert np.isfinite(head.score(seen(features, logits), 0.0)).all()


def test_rows_beyond_the_limit_are_estimated_by_a_head_that_never_saw_them(monkeypatch):
    monkeypatch.setattr(deferral, "MAX_ROWS", 150)
    features, logits, small, large = _world(400)
    group = np.array([f"g{i // 3}" for i in range(400)], dtype=object)
    for units in (None, group):
        head, estimates = fit_deferral(features, logits, small, large, group=units)
        own = np.isclose(head.score(seen(features, logits), 0.0), gate_score(estimates, 0.0), atol=1e-12)
        assert 245 <= own.sum() <= 255
    assert all(len(set(own[group == name])) == 1 for name in set(group))


@pytest.mark.parametrize("group", [None, np.array(["a"] * 3, dtype=object)], ids=["row", "group"])
def test_a_single_row_or_group_is_refused(group):
    num_rows = 1 if group is None else 3
    right = np.ones(num_rows, dtype=bool)
    with pytest.raises(DataError, match="at least two rows or groups, got 1"):
        fit_deferral(None, np.zeros((num_rows, 3)), right, right, group=group)
