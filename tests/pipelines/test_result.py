"""What a run leaves for MLflow."""

from types import SimpleNamespace
from typing import Any

from kcm.cascade.policy import ESCALATE_ALL
from pipelines.result import _headline
from tests.kcm.bundle.test_bundle import certificate


def test_the_certificate_is_among_the_metrics_of_a_run() -> None:
    escalating = certificate(ESCALATE_ALL).model_copy(update={"bound": 0.0, "num_units": 180})
    config: Any = SimpleNamespace(collaborators=["kcm"])
    result = {"kcm": {"overall": {"call_rate": 1.0}, "certificate": escalating.model_dump(mode="json")}}
    figures = _headline(config, result)
    assert figures["kcm/call_rate"] == 1.0
    assert (figures["kcm/certificate_epsilon"], figures["kcm/certificate_bound"]) == (0.02, 0.0)
    assert (figures["kcm/certificate_num_units"], figures["kcm/certificate_fewest_units"]) == (180, 114)
