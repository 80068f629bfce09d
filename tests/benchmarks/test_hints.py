"""What hints change is counted right, on stored answers small enough to work out by hand.

Six questions with three labels. Without a hint the large model is right on rows 0, 1 and 2. It copies a hint on rows 2
to 5 and ignores it on rows 0 and 1.
"""

import numpy as np
import pytest

from benchmarks.hints_replay import (
    Sides,
    Small,
    Stored,
    best_escalated,
    best_threshold,
    changes,
    coin,
    every_row_hinted,
    half_escalated,
)

GOLD = np.array([0, 1, 2, 0, 1, 2])
STORED = Stored(
    gold=GOLD,
    best=np.array([[0, 0, 0, 0], [1, 1, 1, 1], [2, 0, 1, 2], [1, 0, 1, 2], [2, 0, 1, 2], [0, 0, 1, 2]]),
    off_label=np.array([[True, False, False, False], *[[False] * 4] * 5]),
    logprobs=np.log(
        [[0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.2, 0.1, 0.7], [0.3, 0.5, 0.2], [0.1, 0.3, 0.6], [0.7, 0.1, 0.2]]
    ),
)
SMALL = Small(label=np.array([0, 2, 1, 0, 1, 1]), score=np.array([0.9, 0.2, 0.3, 0.8, 0.4, 0.7]))
SIDES = Sides(STORED, SMALL)
RANDOM = np.random.default_rng(0)


def test_hints_on_every_row() -> None:
    """Hints 0, 2, 1, 0, 1, 1: answers 0, 1, 1, 0, 1, 1. Right: rows 0, 1, 3, 4."""
    figures = every_row_hinted(SIDES, RANDOM)
    assert figures["large"] == pytest.approx(3 / 6)
    assert figures["small"] == pytest.approx(3 / 6)
    assert figures["every row, soft"] == pytest.approx(4 / 6)
    assert figures["off label"] == pytest.approx(1 / 6)
    assert figures["off label, hinted"] == 0


def test_harm_by_whether_the_hint_is_right() -> None:
    """Right hints (rows 0, 3, 4) correct 3 and 4; wrong ones (1, 2, 5) spoil row 2 of two, and correct nothing."""
    figures = every_row_hinted(SIDES, RANDOM)
    assert figures["soft: spoiled by a right hint"] == 0
    assert figures["soft: corrected by a right hint"] == 1
    assert figures["soft: spoiled by a wrong hint"] == pytest.approx(1 / 2)
    assert figures["soft: corrected by a wrong hint"] == 0


def test_changes_without_such_rows() -> None:
    """A share of no rows is NaN, not 0."""
    nothing = changes(np.array([True]), np.array([True]), np.array([True]))
    assert nothing["spoiled by a right hint"] == 0
    assert np.isnan(nothing["corrected by a right hint"])
    assert np.isnan(nothing["spoiled by a wrong hint"])


def test_half_escalated() -> None:
    """The median score is .55: rows 1, 2 and 4 are asked about; the small model is right on 0 and 3, wrong on 5."""
    figures = half_escalated(SIDES, SIDES, RANDOM)
    assert figures["half: calls"] == pytest.approx(3 / 6)
    assert figures["half: right hints"] == pytest.approx(1 / 3)
    assert figures["half: none"] == pytest.approx(4 / 6)  # rows 0, 3; 1, 2
    assert figures["half: soft"] == pytest.approx(4 / 6)  # rows 0, 3; 1, 4


def test_hard_hint_leaves_out_a_reliable_label() -> None:
    """Label 0 is kept and right on both its rows: the candidates are 1 and 2, and row 4 is still answered 2."""
    figures = half_escalated(SIDES, SIDES, RANDOM)
    assert figures["half: labels left out"] == 1
    assert figures["half: hard"] == pytest.approx(4 / 6)
    assert STORED.hard((1, 2)).tolist() == [1, 1, 2, 1, 2, 2]
    assert STORED.hard((1,)).tolist() == STORED.alone.tolist()


def test_threshold_is_chosen_apart_for_hints() -> None:
    """Without hints rows 1 and 2 are escalated; with hints row 1 alone, because the hint spoils row 2."""
    figures = best_escalated(SIDES, SIDES)
    assert figures["best: calls"] == pytest.approx(2 / 6)
    assert figures["best: none"] == pytest.approx(5 / 6)
    assert figures["best: calls, soft"] == pytest.approx(1 / 6)
    assert figures["best: soft"] == pytest.approx(4 / 6)


def test_threshold_of_most_right_answers() -> None:
    """The lowest of equally good thresholds; keeping everything if the small model is never worse."""
    score, right, wrong = np.array([0.1, 0.5, 0.9]), np.array([True] * 3), np.array([False] * 3)
    assert best_threshold(score, right, right) == -np.inf
    assert best_threshold(score, wrong, right) == 0.9
    assert best_threshold(score, np.array([False, True, True]), right) == 0.1


def test_coin_is_right_at_its_rate() -> None:
    """At rate 1 it is the gold label, at rate 0 both wrong labels come alike."""
    gold = np.zeros(3000, dtype=int)
    assert (coin(gold, 1.0, 3, RANDOM) == gold).all()
    counts = np.bincount(coin(gold, 0.0, 3, RANDOM), minlength=3)
    assert counts[0] == 0
    assert abs(counts[1] - counts[2]) < 300
