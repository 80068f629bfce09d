"""A few labels, on disagreements alone, certify a challenger that disagrees more often than it may lose."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from kcm.certification.labelled import LabelledPath, LabelledTest, LabelledUnits
from kcm.certification.traffic import Traffic, TrafficPath


@dataclass(frozen=True, eq=False)
class Window:
    """Traffic with what a person said of its disagreements above a threshold of 0."""

    traffic: Traffic
    drawn: NDArray[np.bool_]
    label_probability: NDArray[np.float64]
    answered: NDArray[np.bool_]
    lost: NDArray[np.bool_]
    order: NDArray[np.float64]
    floor: float
    noise: float = 0.0

    @property
    def units(self) -> LabelledUnits:
        return LabelledUnits.of(**vars(self))

    def path(self, epsilon: float, delta: float) -> LabelledPath:
        return LabelledPath(self.units, 0.0, epsilon, delta)


def labelled(num: int, *, disputed: float, losing: float, rho: float = 1.0, seed: int = 0, **more: Any) -> Window:
    """All kept by the challenger and asked for; `disputed` of them differ, of which it loses a share `losing`."""
    rng = np.random.default_rng(seed)
    disagrees = rng.random(num) < disputed
    traffic = Traffic(
        score=np.ones(num),
        asked=np.ones(num, dtype=bool),
        probability=np.ones(num),
        disagrees=disagrees,
        floor=1.0,
        unit=more.pop("unit", None),
    )
    drawn = disagrees & (rng.random(num) < rho)
    columns = {
        "drawn": drawn,
        "label_probability": np.full(num, rho),
        "answered": drawn,
        "lost": rng.random(num) < losing,
        "order": np.random.default_rng(seed + 1000).random(num),
        "floor": rho,
    }
    return Window(traffic=traffic, **columns | more)


def test_labels_certify_where_disagreement_alone_cannot() -> None:
    window = labelled(4000, disputed=0.1, losing=0.02)
    assert TrafficPath(window.traffic, epsilon=0.02, delta=0.1, bet=0.9).p_value(0.0) == 1.0
    test = LabelledTest(window.units, epsilon=0.02, delta=0.1)
    assert test.certified
    assert 0.002 < test.bound < 0.02


def test_only_fully_answered_units_count() -> None:
    """Promise: only units whose items are all answered count, and more answers never hurt."""
    unit = np.array([f"u{i // 4}" for i in range(2000)], dtype=object)
    place = np.random.default_rng(3).permutation(500)  # of every unit
    window = labelled(2000, disputed=0.2, losing=0.01, unit=unit, order=np.repeat(place, 4).astype(float))
    drawn = np.flatnonzero(window.drawn)
    rank = place[drawn // 4]
    found = []
    for share in (0.25, 0.5, 1.0):
        answered = np.zeros(2000, dtype=bool)
        answered[drawn[rank < share * 500]] = True
        test = LabelledTest(replace(window, answered=answered).units, epsilon=0.05, delta=0.1)
        assert test.num_decided >= share * 500
        found.append(test.p_value)
    assert found == sorted(found, reverse=True)
    nothing = LabelledTest(replace(window, answered=np.zeros(2000, dtype=bool)).units, epsilon=0.05, delta=0.1)
    assert nothing.num_decided < 50
    assert not nothing.certified


@pytest.mark.parametrize("rho", [1.0, 0.5])
def test_epsilon_loss_is_certified_at_most_as_promised(rho: float) -> None:
    passed = sum(
        LabelledTest(labelled(800, disputed=0.3, losing=1 / 6, rho=rho, seed=seed).units, 0.05, 0.1).certified
        for seed in range(300)
    )
    assert passed <= binom.ppf(0.99, 300, 0.1)


def certified_at_the_limit(hidden: float, noise: float) -> int:
    """In how many of 300 windows a loss of epsilon is certified, of which labels hide a share."""
    losing = (1 - hidden) / 6
    windows = (labelled(800, disputed=0.3, losing=losing, seed=seed, noise=noise) for seed in range(300))
    return sum(LabelledTest(window.units, 0.05, 0.1).certified for window in windows)


def test_label_errors_keep_the_promise_once_declared() -> None:
    most = binom.ppf(0.99, 300, 0.1)
    assert certified_at_the_limit(hidden=0.3, noise=0.3) <= most < certified_at_the_limit(hidden=0.3, noise=0.0)


def test_the_value_of_a_unit_is_the_weighted_mean_over_its_items() -> None:
    """One unit of four items, one of them lost: X = f / (pi rho) / 4."""
    first = np.arange(4) == 0
    traffic = Traffic(
        score=np.ones(4),
        asked=np.ones(4, dtype=bool),
        probability=np.where(first, 0.5, 1.0),
        disagrees=first,
        floor=0.25,
        unit=np.array(["a"] * 4, dtype=object),
    )
    window = Window(
        traffic=traffic,
        drawn=first,
        label_probability=np.where(first, 0.8, 1.0),
        answered=first,
        lost=first,
        order=np.zeros(4),
        floor=0.1,
    )
    x, level = 0.1 / (0.5 * 0.8) / 4, 0.1 * 0.9
    wealth = np.mean([1 - bet * (x - level) for bet in (0.9, 0.5, 0.25)])
    assert wealth > 1
    assert LabelledTest(window.units, epsilon=0.9, delta=0.1).p_value == pytest.approx(1 / wealth)


def test_labels_bound_losses_above_and_below_the_draw() -> None:
    """Promise: what holds where the labels were drawn holds above; below, nothing is known."""
    window = labelled(4000, disputed=0.1, losing=0.02)
    path = window.path(0.02, 0.1)
    assert path.certified() == 0.0
    assert path.p_value(0.5) == path.p_value(0.0) <= 0.1
    assert path.p_value(-0.5) == path.upper_bound(-0.5) == 1.0
    assert window.path(0.0005, 0.1).certified() == math.inf


def by_score(num: int, seed: int, losing_below: float, losing_above: float, split: float) -> Window:
    """Scores are uniform; a tenth differs, and below `split` the challenger loses more of that than above."""
    rng = np.random.default_rng(seed + 2000)
    window = labelled(num, disputed=0.1, losing=0.0, seed=seed)
    score = rng.random(num)
    lost = rng.random(num) < np.where(score > split, losing_above, losing_below)
    return replace(window, traffic=replace(window.traffic, score=score), lost=lost)


def test_refuted_threshold_gives_the_closest_stricter_one() -> None:
    window = by_score(6000, 1, losing_below=0.6, losing_above=0.02, split=0.4)
    path = window.path(0.02, 0.1)
    lowest = path.certified()
    assert not LabelledTest(window.units, 0.02, 0.1).certified
    assert 0.0 < lowest < 0.5
    assert path.p_value(lowest) <= 0.1 < path.p_value(np.nextafter(lowest, 0))
    assert path.upper_bound(lowest) <= 0.02
    p_values = [path.p_value(step) for step in np.linspace(0, 1, 40)]
    assert p_values == sorted(p_values, reverse=True)
    unanswered = replace(window, answered=window.answered & (window.traffic.score > 0.5))
    assert 0.4 < unanswered.path(0.02, 0.1).certified() <= 0.5  # the others are not needed


def test_path_certifies_bad_thresholds_at_most_as_promised() -> None:
    """Everything above a threshold of 0.5 loses exactly epsilon: what is certified below is false."""
    false = sum(
        by_score(800, seed, losing_below=0.5, losing_above=0.5, split=0).path(0.025, 0.1).certified() < 0.5
        for seed in range(300)
    )
    assert false <= binom.ppf(0.99, 300, 0.1)


def test_the_fewest_units_are_those_of_a_window_without_a_loss() -> None:
    window = labelled(50, disputed=0.0, losing=0.0)
    fewest = window.path(0.05, 0.1).fewest_units
    assert labelled(fewest, disputed=0.0, losing=0.0).path(0.05, 0.1).certified() == 0.0
    fewer = labelled(fewest - 1, disputed=0.0, losing=0.0)
    assert fewer.path(0.05, 0.1).certified() == math.inf
