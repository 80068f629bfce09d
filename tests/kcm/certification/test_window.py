"""A certificate on logged traffic: what is deployed, until when, and what it says of itself."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from kcm.cascade.policy import KEEP_ALL, Decision
from kcm.certification.certificate import CertificateConfig, CertifiedWindow
from kcm.certification.pvalues import binomial_p_value
from kcm.certification.traffic import Traffic
from kcm.certification.window import can_certify, certify_traffic, traffic_path


def _window(num_decisions):
    day = datetime(2026, 3, 1, tzinfo=UTC)
    return CertifiedWindow(
        application="reviews",
        after=100,
        upto=9000,
        begins_at=day,
        ends_at=day + timedelta(days=3),
        expires_at=day + timedelta(days=33),
        num_decisions=num_decisions,
        num_asked=num_decisions // 5,
    )


def _traffic(num_decisions, rate, seed=0):
    rng = np.random.default_rng(seed)
    return Traffic(
        score=rng.normal(size=num_decisions),
        asked=rng.random(num_decisions) < 0.2,
        probability=np.full(num_decisions, 0.2),
        disagrees=rng.random(num_decisions) < rate,
        floor=0.2,
    )


def test_full_agreement_certifies_the_searched_threshold():
    config = CertificateConfig()
    found = certify_traffic(_traffic(4000, 0.0), Decision.of(-1.0), config, _window(4000), delta=0.06)
    assert found.route == Decision.of(-1.0)
    assert found.method == "traffic"
    assert found.bound < 0.02
    assert found.call_rate == pytest.approx(0.16, abs=0.03)
    assert found.window is not None
    assert found.window.expires_at == datetime(2026, 4, 3, tzinfo=UTC)
    assert "101 to 9000" in found.statement
    assert "exchangeable" in found.statement


def test_disagreement_leads_to_a_stricter_threshold():
    traffic = _traffic(6000, 0.06)
    found = certify_traffic(traffic, KEEP_ALL, CertificateConfig(), _window(6000), delta=0.1)
    assert found.route == found.certified
    assert found.decision == "threshold"
    assert (traffic.disagrees & (traffic.score > found.threshold)).mean() < 0.02


def test_fully_asked_window_is_tested_exactly():
    rng, count = np.random.default_rng(0), 1000
    traffic = Traffic(
        score=rng.normal(size=count),
        asked=np.ones(count, dtype=bool),
        probability=np.ones(count),
        disagrees=rng.random(count) < 0.01,
        floor=1.0,
    )
    path = traffic_path(traffic, 0.02, 0.06)
    for threshold in (-np.inf, 0.0, 1.0):
        lost = (traffic.disagrees & (traffic.score > threshold)).sum()
        assert path.p_value(threshold) == pytest.approx(binomial_p_value(lost, count, 0.02))


@pytest.mark.parametrize("floor", [0.2, 1.0])
def test_number_of_units_decides_if_a_window_can_certify(floor):
    def traffic(count, disagrees):
        ones = np.ones(count)
        return Traffic(score=ones, asked=ones > 0, probability=ones, disagrees=np.full(count, disagrees), floor=floor)

    config = CertificateConfig()
    for count, enough in ((100, False), (2000, True)):
        found = certify_traffic(traffic(count, False), KEEP_ALL, config, _window(count), delta=0.06)
        assert (found.route == KEEP_ALL) is enough
        assert can_certify(traffic(count, True), config, 0.06) is enough
