"""The gate: one score for search, certificate and serving."""

import numpy as np
import pytest

from kcm.cascade.fitted.deferral import fit_deferral
from kcm.cascade.gate import Gate, distinct_gates, fit_gate
from kcm.cascade.policy import Policy
from kcm.cascade.scores import SCORE_LIMIT
from kcm.config import parse_config
from kcm.errors import ConfigError, DataError


def test_confidence_of_two_labels_is_the_gap_over_the_temperature():
    gate = Gate(name="confidence", temperature=4.0)
    np.testing.assert_allclose(gate.score(None, [[3.0, 1.0], [0.0, 0.0]]), [0.5, 0.0], atol=1e-15)


def test_float32_logits_are_scored_in_float64():
    score = Gate().score(None, np.array([[40.0, 0.0, 0.0]], dtype=np.float32))
    assert score.dtype == np.float64
    assert score[0] == pytest.approx(40 - np.log(2))


def test_scores_are_finite_even_where_the_judge_is_infinitely_sure():
    for name in ("confidence", "margin", "entropy"):
        score = Gate(name=name).score(None, [[1.0, -np.inf], [1.0, 0.0]])
        assert np.isfinite(score).all()
        assert score[1] < score[0] <= SCORE_LIMIT


def test_the_deferral_gate_prices_a_large_call_by_its_weight():
    rng = np.random.default_rng(0)
    features, logits = rng.normal(size=(300, 4)), rng.normal(size=(300, 3))
    cost = np.where(features[:, 0] > 0, 3.0, 1.0)
    head, _ = fit_deferral(features, logits, features[:, 1] > 0, features[:, 2] > 0, cost)
    free, priced = (Gate(name="deferral", head=head, deferral_weight=w).score(features, logits) for w in (0, 2.0))
    assert (priced - free).mean() == pytest.approx(2.0, rel=0.01)
    assert np.corrcoef(priced - free, cost)[0, 1] > 0.8


def test_the_deferral_head_sees_tempered_logits():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(100, 3))
    head, _ = fit_deferral(None, logits, rng.random(100) < 0.5, rng.random(100) < 0.8)
    tempered = Gate(name="deferral", head=head, temperature=2.0).score(None, 2 * logits)
    np.testing.assert_array_equal(tempered, Gate(name="deferral", head=head).score(None, logits))


def test_a_gate_without_what_it_needs_is_refused():
    with pytest.raises(ConfigError, match="needs its fitted head"):
        Gate(name="deferral")
    with pytest.raises(ConfigError, match="temperature must be finite and positive, got 0"):
        Gate(temperature=0.0)
    with pytest.raises(DataError, match="NaN"):
        Gate().score(None, [[np.nan, 0.0]])


def test_features_of_another_width_are_refused():
    rng = np.random.default_rng(0)
    features, logits = rng.normal(size=(50, 4)), rng.normal(size=(50, 3))
    head, _ = fit_deferral(features, logits, rng.random(50) < 0.5, rng.random(50) < 0.8)
    gate = Gate(name="deferral", head=head)
    with pytest.raises(DataError, match=r"features of shape \(50, 3\), the deferral head reads \(50, 4\)"):
        gate.score(features[:, :3], logits)
    with pytest.raises(DataError, match="deferral head reads"):
        gate.score(None, logits)


def test_gates_that_order_two_labels_alike_are_searched_once():
    assert distinct_gates(["margin", "confidence", "deferral", "entropy"], 2) == ("margin", "deferral")
    assert distinct_gates(["confidence", "margin", "confidence"], 3) == ("confidence", "margin")


def test_all_scores_order_two_labels_alike():
    logits = np.random.default_rng(0).normal(size=(200, 2)) * 3
    orders = [
        np.argsort(Gate(name=n, temperature=t).score(None, logits)).tolist()
        for n, t in (("confidence", 1.0), ("margin", 1.0), ("entropy", 1.0), ("entropy", 3.0))
    ]
    assert all(order == orders[0] for order in orders)


@pytest.mark.parametrize("name", ["confidence", "margin", "entropy"])
def test_a_gate_of_the_judge_alone_has_nothing_to_fit(table, name):
    fitted = fit_gate(name, 2.0, table, None, deferral_weight=0.5)
    assert (fitted.gate.name, fitted.gate.temperature, fitted.gate.deferral_weight) == (name, 2.0, 0.0)
    np.testing.assert_array_equal(fitted.scores, fitted.gate.score(None, table.judge_logits))


def test_a_fitted_deferral_gate_scores_its_own_rows_out_of_fold(table):
    fitted = fit_gate("deferral", 2.0, table, None, deferral_weight=0.1)
    assert fitted.gate.deferral_weight == 0.1
    assert not np.allclose(fitted.scores, fitted.gate.score(None, table.judge_logits))


GAP = """
import numpy as np
from kcm.cascade.scores import GateScore

class Gap(GateScore):
    def score(self, judge_logits_NC):
        return judge_logits_NC.max(1) - judge_logits_NC.min(1)
"""


def test_a_gate_score_from_outside_is_named_in_a_policy(outside_package):
    (outside_package / "gap.py").write_text(GAP)
    policy = Policy.model_validate_json('{"gate": "gap:Gap"}')
    assert Policy.model_validate_json(policy.model_dump_json()) == policy
    assert Gate(policy.gate, temperature=2.0).score(None, [[4.0, 0.0, 2.0]]).tolist() == [2.0]
    assert distinct_gates(["confidence", "gap:Gap", "margin"], 2) == ("confidence", "gap:Gap")


def test_an_unknown_gate_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"gate = 'magrin': .*unknown gate score.*did you mean 'margin'\?"):
        parse_config(Policy, {"gate": "magrin"})
