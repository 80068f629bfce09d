from __future__ import annotations

import numpy as np
import pytest

from kcm.cascade.policy import ESCALATE_ALL, KEEP_ALL, Decision, Policy
from kcm.cascade.scored import ScoredOutcomes
from kcm.certify.certificate import CertificateConfig, certify_policy
from kcm.certify.promotable import why_not_promotable

CUT = Decision(decision="threshold", threshold=0.5)


@pytest.mark.parametrize(
    "policy",
    [
        Policy(decision=CUT),
        Policy(decision=KEEP_ALL),
        Policy(decision=ESCALATE_ALL, task_decisions={"a": ESCALATE_ALL, "b": CUT}),
    ],
)
def test_a_policy_that_keeps_anything_may_be_promoted(policy: Policy) -> None:
    assert why_not_promotable(policy, {}) is None


def test_a_policy_that_escalates_everything_is_not_and_its_certificate_says_why() -> None:
    right = np.ones(20, dtype=bool)
    rows = ScoredOutcomes(score=np.arange(20.0), small_correct=right, large_correct=right, large_none_error=~right)
    deployed, certificates = certify_policy(rows, rows, Policy(decision=CUT), CertificateConfig(epsilon=0.01))
    assert why_not_promotable(deployed, certificates) == (
        "it escalates everything, because nothing is certified: 20 units, at least 230 are needed"
    )
