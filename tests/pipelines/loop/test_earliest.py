"""The traffic that a first certificate took is as planned, where the two sides agree as expected."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.loop_earliest import STEP, decisions_needed, earliest
from kcm.cascade.policy import KEEP_ALL, Policy
from kcm.certify.certificate import CertificateConfig
from kcm.certify.traffic import Traffic, TrafficPath
from tests.pipelines.loop.windows import facts_of, judged_of, made_window

EVERY = 4  # one decision in so many is of a validate unit, the others certify


def found(num: int, rate: float, share: float) -> int | None:
    window = made_window(num, rate=rate, share=share)
    purpose = ["validate" if place % EVERY == 0 else "certify" for place in range(num)]
    judged = judged_of(window.append_column("purpose", pa.array(purpose)), np.random.default_rng(1).random(num))
    facts = facts_of(window, share_floor=share)
    return earliest(judged, Policy(decision=KEEP_ALL), CertificateConfig(), facts, delta=0.06)


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_where_nothing_disagrees_it_takes_what_was_planned(share: float) -> None:
    planned = decisions_needed(0.0, share, CertificateConfig().epsilon, 0.06)
    assert planned is not None
    took = found(2000, 0.0, share)
    assert took is not None
    assert 1.0 <= took / (planned * EVERY / (EVERY - 1)) <= 1.5
    assert took % STEP == 0


def test_disagreement_costs_what_is_kept_and_not_time_and_too_little_traffic_is_told() -> None:
    """A stricter threshold, which leaves the disputed items to the large model, is certified as early."""
    assert found(2000, 0.03, 0.8) == found(2000, 0.0, 0.8)
    assert found(100, 0.0, 0.2) is None


@pytest.mark.parametrize(("share", "about"), [(0.05, 2800), (0.2, 700)])
def test_the_fewest_decisions_are_those_of_the_formula(share: float, about: int) -> None:
    """ln(1/delta) / KL(0 || share epsilon), and what the safety bets cost."""
    needed = decisions_needed(0.0, share, 0.02, 0.061)
    assert needed is not None
    assert about * 0.97 < needed < about * 1.15


def test_windows_of_the_units_that_are_needed_certify_about_every_second_time() -> None:
    needed = decisions_needed(0.01, 0.2, 0.03, 0.06)
    assert needed is not None
    passed = {part: sum(_certifies(round(part * needed), seed) for seed in range(100)) for part in (0.67, 1.0, 1.5)}
    assert passed[0.67] < passed[1.0] < passed[1.5]
    assert 30 < passed[1.0] < 80
    assert passed[1.5] > 70


def _certifies(num_units: int, seed: int) -> bool:
    rng = np.random.default_rng(seed)
    asked, disagrees = rng.random(num_units) < 0.2, rng.random(num_units) < 0.01
    traffic = Traffic(
        score=np.zeros(num_units),
        asked=asked,
        probability=np.full(num_units, 0.2),
        disagrees=disagrees,
        floor=0.2,
    )
    return TrafficPath(traffic, 0.03, 0.06).p_value(-math.inf) <= 0.06


def test_a_rate_at_epsilon_can_never_be_certified() -> None:
    assert decisions_needed(0.02, 0.2, 0.02, 0.1) is None
