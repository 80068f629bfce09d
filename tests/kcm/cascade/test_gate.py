"""The gate: one score for search, certificate and serving."""

import numpy as np
import pytest

from kcm.cascade.gate import Gate, fit_gate
from kcm.cascade.gate_kinds import SCORE_LIMIT
from kcm.cascade.policy import Policy
from kcm.config import parse_config
from kcm.errors import ConfigError, DataError


def test_confidence_of_two_labels_is_gap_over_temperature():
    gate = Gate(name="confidence", temperature=4.0)
    np.testing.assert_allclose(gate.score(None, [[3.0, 1.0], [0.0, 0.0]]), [0.5, 0.0], atol=1e-15)


def test_scores_stay_finite_for_an_infinitely_sure_judge():
    score = Gate().score(None, [[1.0, -np.inf], [1.0, 0.0]])
    assert np.isfinite(score).all()
    assert score[1] < score[0] <= SCORE_LIMIT


def test_a_fitted_head_sees_tempered_logits(table):
    gate = fit_gate("signals", 1.0, table, None).gate
    tempered = Gate(name="signals", head=gate.head, temperature=2.0).score(None, 2 * table.judge_logits)
    np.testing.assert_array_equal(tempered, gate.score(None, table.judge_logits))


def test_a_fitted_gate_scores_its_own_rows_out_of_fold(table):
    fitted = fit_gate("signals", 2.0, table, None)
    assert not np.allclose(fitted.scores, fitted.gate.score(None, table.judge_logits))


GAP = """
import numpy as np
from kcm.cascade.gate_kinds import GateScore

class Gap(GateScore):
    def score(self, judge_logits_NC):
        return judge_logits_NC.max(1) - judge_logits_NC.min(1)
"""


def test_a_gate_score_from_outside_is_named_in_a_policy(outside_package):
    (outside_package / "gap.py").write_text(GAP)
    policy = Policy.model_validate_json('{"gate": "gap:Gap"}')
    assert Policy.model_validate_json(policy.model_dump_json()) == policy
    assert Gate(policy.gate, temperature=2.0).score(None, [[4.0, 0.0, 2.0]]).tolist() == [2.0]


def test_what_no_gate_can_work_with_is_refused():
    with pytest.raises(ConfigError, match="temperature must be finite and positive, got 0"):
        Gate(temperature=0.0)
    with pytest.raises(DataError, match="NaN"):
        Gate().score(None, [[np.nan, 0.0]])
    with pytest.raises(ConfigError, match=r"gate = 'singals': .*unknown gate score.*did you mean 'signals'\?"):
        parse_config(Policy, {"gate": "singals"})
