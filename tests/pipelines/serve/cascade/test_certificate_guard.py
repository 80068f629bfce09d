"""Promise: a version whose certificate does not hold any more stops doing what it was certified for."""

from datetime import UTC, datetime
from math import inf
from types import SimpleNamespace
from typing import Any

import pytest

from kcm.bundle.answers import Input
from kcm.cascade.policy import ESCALATE_ALL, KEEP_ALL, Decision, Policy
from kcm.inputs.content import Content
from kcm.large import LargeAnswer
from pipelines.serve.cascade.version import CertificateGuard
from pipelines.serve.config import ServeConfig
from tests.pipelines.serve.stubs import StubEscalation, StubSide, version_of

NOW = datetime(2030, 1, 2, tzinfo=UTC)
AT_ONE = Decision(decision="threshold", threshold=1.0)
FRONTIER = {"call_rate": [0.0, 0.2, 0.4, 0.6, 0.8, 1.0], "threshold": [None, 0.0, 1.0, 2.0, 3.0, None]}


def side(expires: datetime | None = None) -> Any:
    certificate = SimpleNamespace(window=expires and SimpleNamespace(expires_at=expires))
    policy = Policy(decision=AT_ONE, task_decisions={"films": KEEP_ALL})
    bundle = SimpleNamespace(policy=policy, metrics={"frontier": FRONTIER}, certificates={None: certificate})
    return SimpleNamespace(bundle=bundle, policy=policy, farthest=inf)


@pytest.mark.parametrize(("refuted", "standing"), [(True, "refuted"), (False, "expired")])
def test_refuted_or_expired_version_escalates_all_tasks(refuted: bool, standing: str) -> None:
    """Promise: a refuted or expired version escalates all whatever the task."""
    small = side(NOW)
    guard = CertificateGuard(small, "1", "escalate_all", lambda: NOW)
    for known in (refuted, False):  # what is refuted stays refuted
        guard.act(known)
        assert guard.standing == standing
    assert [small.policy.decision_for(task) for task in (None, "films")] == [ESCALATE_ALL] * 2


async def test_certificate_expires_while_the_log_is_away() -> None:
    """Promise: a request after the end of a certificate finds it expired, though no log is watched."""
    small = StubSide(certificates=side(datetime(2000, 1, 1, tzinfo=UTC)).bundle.certificates)
    small.bundle.policy = small.policy
    version = version_of(small, StubEscalation(LargeAnswer(1)), ServeConfig())
    await version.answer([Input(Content("a film"))], "r1")
    assert (version.guard.standing, small.policy.decision) == ("expired", ESCALATE_ALL)


def test_far_inputs_escalate_and_the_certificate_holds() -> None:
    """Promise: from a distance on inputs escalate for good and the certificate still holds."""
    small = side()
    guard = CertificateGuard(small, "1", "escalate_all", lambda: NOW)
    for farthest in (2.0, 3.0):
        guard.escalate_novel(farthest)
    assert (small.farthest, guard.standing, small.policy) == (2.0, "holds", small.bundle.policy)
