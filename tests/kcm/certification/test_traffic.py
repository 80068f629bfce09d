"""A challenger is certified on logged traffic without a label, and wrongly so no more often than promised."""

import math
from typing import Any

import numpy as np
import pytest

from kcm.certification.traffic import Traffic, TrafficPath, best_bet
from kcm.errors import DataError


def window(
    num: int, rate: float, *, share: float = 0.2, seed: int = 0, escalated: float = 0.3, **columns: Any
) -> Traffic:
    """Traffic of which the deployed cascade escalated a part; the challenger keeps all of it."""
    rng = np.random.default_rng(seed)
    probability = np.where(rng.random(num) < escalated, 1.0, share)
    parts = {
        "score": rng.normal(size=num),
        "asked": rng.random(num) < probability,
        "probability": probability,
        "disagrees": rng.random(num) < rate,
        "floor": share,
    }
    return Traffic(**parts | columns)


def product(traffic: Traffic, threshold: float, level: float, bet: float) -> float:
    """K as it is written, unit by unit."""
    units = np.arange(len(traffic)) if traffic.unit is None else traffic.unit
    wealth = 1.0
    for unit in dict.fromkeys(units):
        mine = np.flatnonzero(units == unit)
        x = np.mean(
            [
                traffic.floor / traffic.probability[i]
                if traffic.asked[i] and traffic.disagrees[i] and traffic.score[i] > threshold
                else 0.0
                for i in mine
            ]
        )
        wealth *= 1 - bet * (x - level)
    return wealth


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("threshold", [-math.inf, -0.5, 0.0, 1.2, math.inf])
def test_the_p_value_is_that_of_the_product_over_units(grouped: bool, threshold: float) -> None:
    unit = np.array([f"u{i // 3}" for i in range(300)], dtype=object) if grouped else None
    traffic = window(300, 0.05, unit=unit)
    bets = {0.7: 0.8} | dict.fromkeys((0.5, 0.25, 0.1, 0.03), 0.05)
    expected = sum(weight * product(traffic, threshold, 0.2 * 0.1, bet) for bet, weight in bets.items())
    found = TrafficPath(traffic, epsilon=0.1, delta=0.1, bet=0.7).p_value(threshold)
    assert found == pytest.approx(min(1.0, 1 / expected), rel=1e-9)


def test_lowest_threshold_passes_and_one_more_loss_fails() -> None:
    traffic = window(4000, 0.03, seed=3)
    path = TrafficPath(traffic, epsilon=0.02, delta=0.1, bet=0.5)
    lowest = path.certified()
    assert math.isfinite(lowest)
    assert path.p_value(lowest) <= 0.1
    lost = traffic.score[traffic.asked & traffic.disagrees & (traffic.score < lowest)]
    assert path.p_value(np.nextafter(lost.max(), -math.inf)) > 0.1


def test_full_agreement_certifies_all_from_the_fewest_units() -> None:
    fewest = TrafficPath(window(10, 0.0), epsilon=0.05, delta=0.1, bet=0.99).fewest_units
    assert TrafficPath(window(fewest, 0.0), epsilon=0.05, delta=0.1, bet=0.99).certified() == -math.inf
    assert TrafficPath(window(fewest - 1, 0.0), epsilon=0.05, delta=0.1, bet=0.99).certified() == math.inf


def test_upper_bound_lies_where_the_test_turns() -> None:
    path = TrafficPath(window(6000, 0.01, seed=2), epsilon=0.02, delta=0.1, bet=0.5)
    bound = path.upper_bound(-math.inf)
    assert 0.01 < bound < 0.05
    assert TrafficPath(window(6000, 0.01, seed=2), bound + 1e-6, 0.1, 0.5).p_value(-math.inf) <= 0.1
    assert TrafficPath(window(6000, 0.01, seed=2), bound - 1e-4, 0.1, 0.5).p_value(-math.inf) > 0.1


@pytest.mark.parametrize("drift", ["none", "late", "early", "waves"])
def test_epsilon_disagreement_passes_at_most_delta(drift: str) -> None:
    """Only the audits are drawn at random: which items disagree, and when, is up to an adversary."""
    num, epsilon, share, draws, delta = 1500, 0.05, 0.3, 200, 0.1
    disagrees = np.zeros(num, dtype=bool)
    count = round(epsilon * num)
    where = {
        "none": np.linspace(0, num - 1, count).astype(int),
        "late": np.arange(num - count, num),
        "early": np.arange(count),
        "waves": np.concatenate([np.arange(300, 300 + count // 2), np.arange(1200, 1200 + count - count // 2)]),
    }[drift]
    disagrees[where] = True
    score = np.ones(num)
    rng = np.random.default_rng(7)
    probability = np.where(np.arange(num) < 700, share, 2 * share)  # the share was raised on the way
    passed = 0
    for _ in range(draws):
        asked = rng.random(num) < probability
        traffic = Traffic(score=score, asked=asked, probability=probability, disagrees=disagrees, floor=share)
        passed += TrafficPath(traffic, epsilon, delta, bet=0.9).p_value(0.0) <= delta
    assert passed <= delta * draws


def test_bet_for_n_units_allows_the_most_losses() -> None:
    def affordable(bet: float | None, num_units: int) -> float:
        """The lost units of as many that the path certifies, by its own test."""
        score, lost = -np.arange(num_units, dtype=np.float64), np.ones(num_units, dtype=bool)
        traffic = Traffic(score=score, asked=lost, probability=np.ones(num_units), disagrees=lost, floor=1.0)
        return -TrafficPath(traffic, 0.02, 0.06, bet).certified()

    for num_units in (300, 1000, 3000):
        best = affordable(best_bet(num_units, 0.02, 0.06), num_units)
        assert best >= max(affordable(bet, num_units) for bet in (0.05, 0.2, 0.4, 0.6, 0.8, 0.99)) - 1
        assert affordable(None, num_units) == best  # what a path takes by itself


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"floor": 0.0}, "least probability"),
        ({"floor": 0.5}, "outside"),
        ({"score": np.full(10, np.nan)}, "finite"),
        ({"asked": np.ones(9, dtype=bool)}, "expected"),
        ({"unit": np.array(["a"] * 9, dtype=object)}, "expected 10"),
    ],
)
def test_traffic_that_cannot_be_trusted_is_refused(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        window(10, 0.1, **columns)
