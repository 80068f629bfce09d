"""Inputs of unknown classes lie far from all known ones, and how far is too far is settled by classes left out."""

import numpy as np
import pytest
import torch

from kcm.cascade.novelty import MAX_NOVEL_KEPT, NovelRows, Novelty

NUM_LABELS = 4


def novelty(seen: tuple[bool, ...] = (True,) * NUM_LABELS) -> Novelty:
    root_CC = np.random.default_rng(0).normal(size=(NUM_LABELS, NUM_LABELS))
    state = {
        "metric_CC": torch.from_numpy(root_CC @ root_CC.T),
        "target_C": 10.0 * torch.tensor(seen).double(),
        "offset_C": torch.arange(NUM_LABELS).double(),
    }
    found = Novelty.of({"residuals": state})
    assert found is not None
    return found


def by_hand(known: Novelty, logits_C: np.ndarray, labels: list[int]) -> float:
    """The least distance to what the regression was told to give for one of the labels."""
    away = [logits_C - known.offset_C - known.target_C * (np.arange(NUM_LABELS) == label) for label in labels]
    return min(float(np.sqrt(each @ known.metric_CC @ each)) for each in away)


def test_the_distance_is_that_to_the_nearest_class() -> None:
    known, logits_NC = novelty(), np.random.default_rng(1).normal(0, 5, (20, NUM_LABELS))
    expected = [by_hand(known, logits_C, list(range(NUM_LABELS))) for logits_C in logits_NC]
    np.testing.assert_allclose(known.distances(logits_NC), expected)


def test_empty_and_excluded_classes_have_no_distance() -> None:
    known, logits_NC = novelty((True, True, True, False)), np.random.default_rng(2).normal(0, 5, (20, NUM_LABELS))
    np.testing.assert_allclose(known.distances(logits_NC), [by_hand(known, each, [0, 1, 2]) for each in logits_NC])
    without = logits_NC.copy()
    without[:, 0] = -np.inf
    part = np.where(np.arange(NUM_LABELS) == 0, known.offset_C, logits_NC)
    np.testing.assert_allclose(known.distances(without), [by_hand(known, each, [1, 2]) for each in part])


def test_farthest_distance_leaves_the_allowed_kept_share() -> None:
    random = np.random.default_rng(0)
    rows = NovelRows(random.normal(size=1000), random.random(1000))
    farthest = rows.farthest(0.0)
    assert farthest is not None
    assert rows.kept(0.0) == pytest.approx((rows.scores > 0).mean())
    assert rows.kept(0.0, farthest) == pytest.approx(MAX_NOVEL_KEPT)
    assert rows.kept(0.0, farthest) == pytest.approx(((rows.scores > 0) & (rows.distances < farthest)).mean())


@pytest.mark.parametrize("rows", [NovelRows(np.full(100, -1.0), np.ones(100)), NovelRows(np.ones(100), None)])
def test_no_distance_is_set_if_little_is_kept_or_unknown(rows: NovelRows) -> None:
    assert rows.farthest(0.0) is None
    assert rows.kept(0.0, rows.farthest(0.0)) == rows.kept(0.0)
