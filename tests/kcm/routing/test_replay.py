"""What another route would have lost and cost is estimated rightly from a log that tells a part of it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from kcm.errors import DataError
from kcm.routing.replay import LoggedTraffic, Side

# Twelve rows of a log that tells one side of each, a route to replay, and models of what either side would have been.
LARGE = np.array([0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 1, 0], dtype=bool)
PROPENSITY = np.array([0.5, 0.4, 0.25, 0.8, 0.75, 0.5, 0.2, 0.9, 0.6, 0.3, 0.5, 0.7])
RIGHT = np.array([1, 1, 0, 1, 1, 0, 1, 1, 1, 0, 1, 1.0])
KEEP = np.array([1, 0, 0.5, 1, 1, 0, 0.25, 0, 1, 1, 0.75, 0])
SMALL_MODEL = np.array([0.7, 0.4, 0.5, 0.9, 0.8, 0.3, 0.6, 0.2, 0.55, 0.65, 0.45, 0.35])
LARGE_MODEL = np.array([0.9, 0.8, 0.85, 0.95, 0.7, 0.75, 0.9, 0.6, 0.8, 0.85, 0.9, 0.7])


def side(asked: np.ndarray, probability: np.ndarray, correct: np.ndarray, **more: Any) -> Side:
    model = more.pop("model", np.full(len(asked), 0.5))
    return Side(asked=asked, probability=probability, correct=correct, correct_model=model, **more)


def test_the_accuracy_is_that_of_the_open_bandit_pipeline() -> None:
    """obp 0.5.7: DoublyRobust."""
    log = LoggedTraffic(
        small=side(~LARGE, np.where(LARGE, 1 - PROPENSITY, PROPENSITY), RIGHT, model=SMALL_MODEL),
        large=side(LARGE, np.where(LARGE, PROPENSITY, 1 - PROPENSITY), RIGHT, model=LARGE_MODEL),
    )
    assert log.replay(KEEP)["accuracy"]["estimate"] == pytest.approx(0.5721064814814815)


@pytest.mark.parametrize("labelled", [True, False])
def test_over_all_logs_that_could_have_been_it_is_right_on_average(labelled: bool) -> None:
    """Every outcome of the audits of six rows, weighted by its probability."""
    rng = np.random.default_rng(3)
    small, large = (rng.random((2, 6)) < 0.6).astype(float)
    cost_s, cost_l = rng.random((2, 6))
    probability = np.array([0.2, 0.5, 0.9, 0.3, 1.0, 0.6])
    keep, ones = np.array([1, 1, 0, 1, 1, 0.5]), np.ones(6, dtype=bool)
    means: dict[str, float] = {}
    for draw in itertools.product([True, False], repeat=6):
        asked = np.array(draw)
        chance = float(np.where(asked, probability, 1 - probability).prod())
        log = LoggedTraffic(
            small=side(ones, np.ones(6), small, cost=cost_s, cost_model=np.full(6, 0.4)),
            large=side(asked, probability, large, cost=cost_l, cost_model=np.full(6, 0.3)),
            differs=None if labelled else np.abs(small - large),
            differs_model=None if labelled else np.full(6, 0.3),
        )
        found = log.replay(keep)
        for what in ("lost", "cost", *(["accuracy"] if labelled else [])):
            means[what] = means.get(what, 0.0) + chance * found[what]["estimate"]
    lost = keep * (large - small) if labelled else keep * np.abs(large - small)
    assert means["lost"] == pytest.approx(lost.mean())
    assert means["cost"] == pytest.approx((cost_s + (1 - keep) * cost_l).mean())
    if labelled:
        assert means["accuracy"] == pytest.approx((keep * small + (1 - keep) * large).mean())


def made(num: int, share: float, seed: int, **more: Any) -> tuple[LoggedTraffic, np.ndarray, float]:
    """Audited traffic of a known population: the log, the rows that are kept, and what is truly lost."""
    rng = np.random.default_rng(seed)
    unit = np.repeat(np.arange(num // 4), 4)
    ease = rng.normal(size=num // 4)[unit]
    small, large = (rng.random((2, num)) < 1 / (1 + np.exp(-ease - np.array([[1.0], [2.0]])))).astype(float)
    probability = np.where(ease < -0.5, 1.0, share)
    log = LoggedTraffic(
        small=side(np.ones(num, dtype=bool), np.ones(num), small, model=1 / (1 + np.exp(-ease - 1))),
        large=side(rng.random(num) < probability, probability, large, model=1 / (1 + np.exp(-ease - 2))),
        group=np.array([f"u{each}" for each in unit], dtype=object),
        **more,
    )
    grid = np.linspace(-6, 6, 20_001)
    density = np.exp(-(grid**2) / 2) / np.exp(-(grid**2) / 2).sum()
    gap = 1 / (1 + np.exp(-grid - 2)) - 1 / (1 + np.exp(-grid - 1))
    return log, (ease > -1).astype(float), float((density * gap)[grid > -1].sum())


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    held = 0
    for seed in range(200):
        log, keep, truth = made(2000, 0.3, seed)
        low, high = log.replay(keep)["lost"]["interval"]
        held += low <= truth <= high
    assert 180 <= held <= 199


def test_with_everything_asked_for_it_is_the_plain_mean() -> None:
    log, keep, _ = made(400, 1.0, 0)
    found = log.replay(keep)
    plain = float((keep * (log.large.correct - log.small.correct)).mean())
    assert found["lost"]["estimate"] == pytest.approx(plain)
    assert found["effective_rows"] == pytest.approx(keep.sum())


def test_where_nothing_was_lost_the_upper_end_is_not_zero() -> None:
    """With n rows that all agree, the exact upper end of a share is 1 - 0.025^(1/n)."""
    ones = np.ones(100)
    log = LoggedTraffic(
        small=side(ones > 0, ones, ones),
        large=side(ones > 0, ones, ones),
        differs=np.zeros(100),
        differs_model=np.zeros(100),
    )
    low, high = log.replay(ones)["lost"]["interval"]
    assert (low, high) == (0.0, pytest.approx(1 - 0.025**0.01))


def test_a_route_that_keeps_nothing_loses_nothing() -> None:
    log, keep, _ = made(400, 0.3, 1)
    found = log.replay(0 * keep)
    assert found["lost"]["estimate"] == 0
    assert found["effective_rows"] is None
    assert found["call_rate"] == 1


@pytest.mark.parametrize("probability", [0.0, 1.2, np.nan])
def test_rows_that_had_no_chance_are_refused(probability: float) -> None:
    ones = np.ones(3)
    with pytest.raises(DataError, match="large model was asked"):
        LoggedTraffic(small=side(ones > 0, ones, ones), large=side(ones > 0, np.array([1, probability, 1]), ones))


def test_one_unit_gives_no_interval() -> None:
    ones = np.ones(1)
    with pytest.raises(DataError, match="one unit"):
        LoggedTraffic(small=side(ones > 0, ones, ones), large=side(ones > 0, ones, ones))
