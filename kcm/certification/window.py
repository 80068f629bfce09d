"""A certificate on a window of logged traffic, whose randomness is in the audits; see `traffic`."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kcm.cascade.outcome_rows import ScoredOutcomes
from kcm.cascade.policy import Decision
from kcm.certification.betting import fewest_without_loss
from kcm.certification.certificate import Certificate, CertificateConfig, CertifiedWindow, confidence, deployed_fields
from kcm.certification.pvalues import fewest_binomial
from kcm.certification.threshold_paths import RegretPath, ThresholdPath
from kcm.certification.traffic import LARGEST_BET, Traffic, TrafficPath, mixture


class TrafficCertificate(Certificate):
    """A certificate issued on logged traffic; stored and read again it is a `Certificate`."""

    method: Literal["traffic"]
    window: CertifiedWindow
    statement: str


def certify_traffic(
    traffic: Traffic,
    searched: Decision,
    config: CertificateConfig,
    window: CertifiedWindow,
    *,
    delta: float,
) -> TrafficCertificate:
    """Deploy the searched decision if the window certifies it; if not, the stricter certified one, or escalate all.

    `delta` is the attempt's share of the lineage's ledger. A group of traffic is a unit.
    """
    path = traffic_path(traffic, config.epsilon, delta)
    rows = _rows(traffic, np.zeros(len(traffic), dtype=bool))  # the path covers the loss; these rows only count calls
    return TrafficCertificate(
        method="traffic",
        window=window,
        statement=_statement(config.epsilon, delta, window),
        **deployed_fields(path, rows, searched, config, delta),
    )


def traffic_path(traffic: Traffic, epsilon: float, delta: float) -> ThresholdPath:
    """The test of a window; if the large model was asked about everything, no randomness is left to bet on.

    The loss on the window is then known exactly, and the loss on later traffic is tested as on certify rows, with the
    large model's answers as labels.
    """
    if traffic.floor < 1:
        return TrafficPath(traffic, epsilon, delta)
    return RegretPath(_rows(traffic, traffic.disagrees), epsilon, delta)


def fewest_audited(share: float, epsilon: float, delta: float) -> int:
    """Fewest certify units, none lost, that certify a window whose kept items were audited with probability `share`.

    It is what `traffic_path` needs, known before any traffic; `delta` is the attempt's share of the lineage's ledger.
    """
    if share == 1:
        return fewest_binomial(epsilon, delta)
    return fewest_without_loss(*mixture(LARGEST_BET), share * epsilon, delta)


def can_certify(traffic: Traffic, config: CertificateConfig, delta: float) -> bool:
    """Whether the window has enough units to certify anything at all, whatever their outcomes."""
    path = traffic_path(traffic, config.epsilon, delta)
    return path.num_units >= path.fewest_units


def _rows(traffic: Traffic, lost_N: NDArray[np.bool_]) -> ScoredOutcomes:
    """The decisions as rows of a table: the large model is always right, the small one unless the item is lost."""
    right_N = np.ones(len(traffic), dtype=bool)
    return ScoredOutcomes(score=traffic.score, small_correct=~lost_N, large_correct=right_N, group=traffic.unit)


def _statement(epsilon: float, delta: float, window: CertifiedWindow) -> str:
    """The promise in words, for the window and for later traffic."""
    dates = f"{window.begins_at:%Y-%m-%d} to {window.ends_at:%Y-%m-%d}"
    decisions = f"the {window.num_decisions:,} certify decisions {window.after + 1} to {window.upto} ({dates})"
    loss = f"a loss of at most {100 * epsilon:g} points of accuracy against the large model alone"
    certain = f"with a probability of at least {confidence([delta])}"
    until = f"This is relied on until {window.expires_at:%Y-%m-%d %H:%M} UTC."
    labels = f"with {window.num_labels:,} labels of people" if window.num_labels else "without labels"
    return (
        f"On the window itself, {decisions}: {loss}, {certain} over the draws of the audits, under any drift and"
        f" {labels}. The same holds for later traffic if its units are exchangeable with the window's."
        f" {until}"
    )
