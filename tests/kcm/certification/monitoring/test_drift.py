"""Inputs like the certify rows exceed the limit no more often than it says; others do, and soon."""

from typing import Any

import numpy as np
import pytest

from kcm.certification.monitoring.alarm import RateAlarm
from kcm.certification.monitoring.drift import DistanceReference, DriftReference, LabelReference
from kcm.errors import DataError


def rows(num: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(num, 8)) + shift).astype(np.float32)


def test_the_limit_is_exceeded_no_more_often_than_delta() -> None:
    broken = 0
    for seed in range(100):
        reference = DistanceReference.fit(rows(200, 2 * seed), delta=0.1, seed=seed)
        broken += reference.unusual(rows(4000, 2 * seed + 1)).mean() > reference.limit + 0.015
    assert broken <= 10


def test_false_alarms_of_drift_are_rare_and_a_shift_is_found() -> None:
    reference = DistanceReference.fit(rows(600, 0), delta=0.05, seed=0)
    same, other = RateAlarm(reference.limit, 0.05), RateAlarm(reference.limit, 0.05)
    same.observe(reference.unusual(rows(5000, 1)).astype(float))
    other.observe(reference.unusual(rows(5000, 1, shift=0.7)).astype(float))
    assert not same.alarm
    assert other.alarm


def test_a_distance_is_that_to_the_fifth_nearest_reference_row() -> None:
    reference = DistanceReference(rows(50, 3), threshold=0.0, limit=0.1)
    given = rows(1, 4)
    by_hand = np.sort(np.linalg.norm(reference.rows_RD - given, axis=1))[4]
    above, below = (DistanceReference(reference.rows_RD, t, 0.1) for t in (by_hand * 1.001, by_hand * 0.999))
    assert not above.unusual(given)[0]
    assert below.unusual(given)[0]


def test_rising_rare_labels_are_detected() -> None:
    rng = np.random.default_rng(0)
    usual, changed = [0.5, 0.44, 0.03, 0.03], [0.4, 0.3, 0.15, 0.15]
    reference = LabelReference.fit(rng.choice(4, 1000, p=usual), 4, delta=0.05, seed=0)
    assert reference.rare == {2, 3}
    same, other = RateAlarm(reference.limit, 0.05), RateAlarm(reference.limit, 0.05)
    same.observe(reference.unusual(rng.choice(4, 3000, p=usual)).astype(float))
    other.observe(reference.unusual(rng.choice(4, 3000, p=changed)).astype(float))
    assert not same.alarm
    assert other.alarm


def reference_of(
    num: int, seed: int, escalates: float, disagrees: float, delta: float = 0.1, **novelty: Any
) -> DriftReference:
    rng = np.random.default_rng(seed)
    labels, keeps = rng.choice(3, num, p=[0.6, 0.37, 0.03]), rng.random(num) >= escalates
    return DriftReference.fit(rows(num, seed), labels, 3, keeps, rng.random(num) < disagrees, delta, **novelty)


def test_all_limits_of_a_version_hold_together() -> None:
    broken = 0
    for seed in range(60):
        limits = reference_of(300, seed, escalates=0.3, disagrees=0.1).limits()
        broken += limits["call_rate"] < 0.3 or limits["disagreement"] < 0.7 * 0.1
    assert broken <= 6
    assert set(limits) == {"call_rate", "disagreement", "distance", "labels"}


def test_rate_of_far_inputs_is_bounded_by_known_distances() -> None:
    broken = 0
    for seed in range(60):
        distances = np.random.default_rng(seed).exponential(size=300)
        reference = reference_of(300, seed, escalates=0.3, disagrees=0.1, novelty_N=distances, farthest=2.5)
        assert reference.novelty is not None
        broken += reference.limits()["novelty"] < np.exp(-reference.novelty.threshold)
    assert broken <= 6
    assert reference.novelty.limit < 0.2
    again = DriftReference.of(reference.rows(), reference.figures())
    assert (again.novelty, again.limits()) == (reference.novelty, reference.limits())


def test_next_unknown_class_escalates_like_earlier_ones() -> None:
    """Promise: unknown classes close together do not put the next one, slightly nearer, below the distance to escalate.

    No certify row escalates for it, and a distance among the certify rows stays as it is.
    """
    distances = np.linspace(1, 8, 300)

    def reacts_at(farthest: float | None) -> float | None:
        reference = reference_of(300, 0, escalates=0.3, disagrees=0.1, novelty_N=distances, farthest=farthest)
        assert reference.novelty is not None
        return reference.novelty.farthest

    unknown = reacts_at(176.7)
    assert unknown is not None
    assert distances.max() < unknown < 174.4
    assert [reacts_at(2.5), reacts_at(None)] == [2.5, None]


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(DataError, match="99 rows"):
        DistanceReference.fit(rows(99, 0), delta=0.1, seed=0)


def test_what_may_take_any_value_cannot_drift() -> None:
    assert "call_rate" not in reference_of(300, 0, escalates=1.0, disagrees=0.1).limits()


def test_what_was_escalated_disagrees_with_nothing() -> None:
    assert reference_of(300, 0, escalates=0.9, disagrees=0.5).disagreement < 0.15
