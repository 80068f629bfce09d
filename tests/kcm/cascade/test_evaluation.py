"""What a gate and a route are worth, by hand and where nothing can be gained."""

import pytest

from kcm.cascade.evaluation import LabelQuality, label_qualities, route_quality, router_quality
from kcm.cascade.outcome_rows import ScoredOutcomes


def test_a_router_of_four_rows_is_the_hand_worked_one():
    # Kept first: right, wrong, right, wrong; the large model is always right.
    rows = ScoredOutcomes(score=[4, 3, 2, 1], small_correct=[1, 0, 1, 0], large_correct=[1, 1, 1, 1])
    quality = router_quality(rows)
    assert (quality.small_accuracy, quality.large_accuracy) == (0.5, 1.0)
    # Accuracies 1, 1, 3/4, 3/4, 1/2 at call rates 1, 3/4, 1/2, 1/4, 0.
    assert quality.area == pytest.approx((1 + 7 / 8 + 3 / 4 + 5 / 8) / 4)
    assert quality.apgr == pytest.approx((quality.area - 0.5) / 0.5)
    assert quality.auroc == 0.75
    assert (quality.oracle_accuracy, quality.oracle_call_rate) == (1.0, 0.5)


def test_route_is_compared_with_large_on_the_same_rows():
    rows = ScoredOutcomes(score=[4, 3, 2, 1], small_correct=[1, 1, 0, 0], large_correct=[1, 0, 0, 1])
    quality = route_quality(rows, [True, True, False, False], [1.0, 2.0, 3.0, 4.0], 0.25)
    assert (quality.call_rate, quality.calls_saved) == (0.5, 0.5)
    assert quality.cost_saved == pytest.approx(1 - (1 + 7) / 10)
    assert (quality.small.estimate, quality.large.estimate, quality.cascade.estimate) == (0.5, 0.5, 0.75)
    assert quality.difference.estimate == 0.25
    assert quality.difference.low < 0.25 < quality.difference.high


def test_to_keep_nothing_is_the_large_model_alone():
    rows = ScoredOutcomes(score=[2, 1], small_correct=[1, 1], large_correct=[0, 1])
    quality = route_quality(rows, [False, False], [1.0, 1.0])
    assert quality.difference.estimate == 0
    assert quality.cost_saved == 0


def test_labels_are_told_by_what_is_kept_and_wrong():
    rows = ScoredOutcomes(
        score=[5, 4, 3, 2, 1],
        small_correct=[1, 0, 0, 1, 0],
        large_correct=[1, 1, 0, 0, 1],
    )
    worst, other = label_qualities(rows, [1, 1, 1, 1, 0], label=[0, 1, 1, 0, 1], small=[0, 2, 2, 0, 0])
    assert worst == LabelQuality(1, 3, 0.0, pytest.approx(2 / 3), pytest.approx(1 / 3), pytest.approx(2 / 3), 2, (2, 2))
    assert other == LabelQuality(0, 2, 1.0, 0.5, 1.0, 1.0, 0, None)
