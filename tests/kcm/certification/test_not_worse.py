"""Epsilon 0: the cascade is at least as accurate as the large model, and that is seldom said where it is not."""

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import binomtest

from kcm.cascade.frontier import Frontier
from kcm.cascade.outcome_rows import ScoredOutcomes
from kcm.cascade.policy import KEEP_ALL, Decision
from kcm.certification.certificate import CertificateConfig, certify
from kcm.certification.threshold_paths import NotWorsePath, frozen_grid

NOT_WORSE = CertificateConfig(epsilon=0.0, delta=0.1)


def rows_of(num_rows: int, seed: int, won: float, lost: float, turn: float = 0.0) -> ScoredOutcomes:
    """Rows above the score `turn` are won and lost with these probabilities, those below the other way round."""
    rng = np.random.default_rng(seed)
    score, chance = rng.uniform(-1, 1, num_rows), rng.random(num_rows)
    above = score > turn
    is_won = chance < np.where(above, won, lost)
    is_lost = ~is_won & (chance < won + lost)
    right = rng.random(num_rows) < 0.8
    small = (right | is_won) & ~is_lost
    return ScoredOutcomes(score=score, small_correct=small, large_correct=(right | is_lost) & ~is_won)


def loss_at(cut: float, won: float, lost: float, turn: float = 0.0) -> float:
    """The true loss of keeping what scores above `cut`, for rows of `rows_of`."""
    if cut == np.inf:
        return 0.0
    above, below = (1 - max(cut, turn)) / 2, max(0.0, turn - max(cut, -1.0)) / 2
    return (lost - won) * (above - below)


@pytest.mark.parametrize("threshold", [-1.0, 0.0, 0.7])
def test_net_at_epsilon_zero_is_the_sign_test(threshold: float) -> None:
    """Oracle: scipy's exact binomial test of the rows on which one model alone is right."""
    rows = rows_of(500, 0, won=0.1, lost=0.06)
    kept = rows.score > threshold
    wins = int((kept & rows.small_correct & ~rows.large_correct).sum())
    losses = int((kept & ~rows.small_correct & rows.large_correct).sum())
    path = NotWorsePath(rows, np.array([threshold]), 0.1)
    assert path.p_value(threshold) == pytest.approx(binomtest(losses, wins + losses, 0.5, alternative="less").pvalue)


def test_rows_that_are_neither_won_nor_lost_say_nothing() -> None:
    """Without a row that tells the models apart nothing is shown, however many rows there are."""
    right = np.ones(1000, dtype=bool)
    rows = ScoredOutcomes(score=np.linspace(0, 1, 1000), small_correct=right, large_correct=right)
    assert NotWorsePath(rows, np.array([0.5]), 0.1).p_value(0.5) == 1.0
    assert certify(rows, rows, KEEP_ALL, NOT_WORSE).decision == "escalate_all"


@pytest.mark.parametrize("method", ["auto", "net"])
def test_a_better_small_side_is_certified(method: str) -> None:
    """The path begins where rows that choose are surest of a gain: hardly a kept row gains hardly anything."""
    validate, rows = (rows_of(1000, seed, won=0.12, lost=0.05) for seed in (1, 2))
    config = CertificateConfig(epsilon=0.0, method=method)
    strictest = frozen_grid(Frontier.of(validate), -np.inf, beyond=False)[0]
    assert NotWorsePath(rows, np.array([strictest]), 0.1).p_value(strictest) > 0.1
    certificate = certify(validate, rows, Decision.of(0.0), config)
    assert certificate.route == Decision.of(0.0)
    assert certificate.method == "net"
    assert certificate.bound <= 0


def test_what_is_not_certified_gives_way_to_a_stricter_threshold() -> None:
    """Keeping all loses as much as it gains; a threshold above is deployed instead."""
    validate, rows = (rows_of(2000, seed, won=0.12, lost=0.05) for seed in (1, 2))
    certificate = certify(validate, rows, KEEP_ALL, NOT_WORSE)
    assert certificate.decision == "threshold"
    assert -1 < certificate.route.cut <= 0.2
    assert certificate.bound == 0.0


def test_regret_is_refused_at_epsilon_zero() -> None:
    """It credits no wins, so no rows whatever could show it."""
    with pytest.raises(ValidationError, match="needs method net or auto"):
        CertificateConfig(epsilon=0.0, method="regret")


@pytest.mark.parametrize(("won", "lost", "turn"), [(0.08, 0.08, 0.0), (0.1, 0.06, 0.3)])
def test_the_promise_is_kept_at_its_boundary(won: float, lost: float, turn: float) -> None:
    """In 300 worlds, seeded: no more than delta are certified and worse, beyond three standard errors.

    In the first no threshold gains anything, in the second those that keep most lose.
    """
    false = []
    for world in range(300):
        validate, rows = rows_of(300, 2 * world, won, lost, turn), rows_of(400, 2 * world + 1, won, lost, turn)
        searched = Decision.of(Frontier.of(validate).cheapest(0.0).threshold)
        route = certify(validate, rows, searched, NOT_WORSE).route
        truly = loss_at(route.cut, won, lost, turn)
        false.append(route.decision != "escalate_all" and truly >= 0)
    assert np.mean(false) <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / 300)


def test_groups_keep_the_promise_at_its_boundary() -> None:
    """Rows of a group are copies: as rows of their own they would seem four times as many as they are."""

    def grouped(seed: int) -> ScoredOutcomes:
        rows = rows_of(150, seed, won=0.15, lost=0.15).select(np.repeat(np.arange(150), 4))
        return ScoredOutcomes(
            score=rows.score,
            small_correct=rows.small_correct,
            large_correct=rows.large_correct,
            group=np.repeat(np.arange(150), 4).astype(object),
        )

    routes = [certify(grouped(2 * world), grouped(2 * world + 1), KEEP_ALL, NOT_WORSE).route for world in range(200)]
    assert np.mean([route.decision != "escalate_all" for route in routes]) <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / 200)
