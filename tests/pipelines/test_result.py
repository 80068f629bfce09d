"""What a run leaves for MLflow."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from kcm.cascade.policy import ESCALATE_ALL
from kcm.certify.certificate import Certificate
from pipelines.result import _headline


def test_the_certificate_is_among_the_metrics_of_a_run() -> None:
    certificate = Certificate(
        method="regret",
        epsilon=0.02,
        delta=0.1,
        decision="escalate_all",
        threshold=None,
        bound=0.0,
        valid=True,
        call_rate=1.0,
        call_rate_bound=None,
        searched=ESCALATE_ALL,
        certified=ESCALATE_ALL,
        num_rows=200,
        num_units=180,
        fewest_units=114,
        reason="",
    )
    config: Any = SimpleNamespace(trained=["kcm"])
    result = {"kcm": {"overall": {"call_rate": 1.0}, "certificate": certificate.model_dump(mode="json")}}
    figures = _headline(config, result)
    assert figures["kcm/call_rate"] == 1.0
    assert (figures["kcm/certificate_epsilon"], figures["kcm/certificate_bound"]) == (0.02, 0.0)
    assert (figures["kcm/certificate_num_units"], figures["kcm/certificate_fewest_units"]) == (180, 114)
