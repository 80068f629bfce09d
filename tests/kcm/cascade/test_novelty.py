"""Inputs of unknown classes lie far from all known ones, and how far is too far is settled by classes left out."""

import numpy as np
import pytest
import torch

from kcm.cascade.gate import Gate
from kcm.cascade.novelty import FAR_SHARE, MAX_NOVEL_KEPT, NovelRows, Novelty, Reach
from kcm.cascade.outcome_rows import ScoredOutcomes
from kcm.cascade.policy import KEEP_ALL, Decision, Policy
from kcm.cascade.search import find_policy
from kcm.cascade.thresholds import FAR
from kcm.certification.certificate import CertificateConfig, certify_policy
from kcm.errors import ConfigError

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


def test_a_hundredth_of_unlearned_rows_lies_beyond_the_reach() -> None:
    """Promise: the limit comes from rows that the judge has not learned; what lies beyond it has the lowest score."""
    logits_NC = np.random.default_rng(3).normal(0, 5, (400, NUM_LABELS))
    gate = Gate("confidence", reach=Reach.fit(novelty(), logits_NC))
    score_N, raw_N = gate.score(None, logits_NC), Gate("confidence").score(None, logits_NC)
    far_N = score_N == FAR
    assert far_N.mean() == pytest.approx(FAR_SHARE, abs=1 / 200)
    assert novelty().distances(logits_NC)[far_N].min() > novelty().distances(logits_NC)[~far_N].max()
    np.testing.assert_array_equal(score_N[~far_N], raw_N[~far_N])
    with pytest.raises(ConfigError, match="measures no distance"):
        Reach.of({}, 1.0)


@pytest.mark.parametrize("method", ["regret", "net", "auto"])
@pytest.mark.parametrize("far_are_right", [True, False])
def test_no_search_and_no_certificate_keeps_far_rows(method: str, far_are_right: bool) -> None:
    """Promise: `keep all` escalates far rows; the certificate counts them as calls, and not as losses."""
    score_N = np.random.default_rng(4).normal(size=500)
    score_N[:10] = FAR
    small_N = (score_N > FAR) | far_are_right
    rows = ScoredOutcomes(score=score_N, small_correct=small_N, large_correct=np.ones(500))
    found = find_policy(rows, Gate("confidence", reach=Reach(novelty(), 2.0)), "global", 0.05)
    assert (found.policy.decision, found.policy.farthest) == (KEEP_ALL, 2.0)
    assert found.calls_saved == pytest.approx(0.98)
    config = CertificateConfig.model_validate({"method": method})
    policy, certificates = certify_policy(rows, rows, found.policy, config)
    assert policy == found.policy
    assert certificates[None].call_rate == pytest.approx(0.02)
    assert certificates[None].bound < 0.02
    assert policy.keep(score_N).tolist() == (score_N > FAR).tolist()
    assert Policy(decision=Decision.of(-np.inf)).keep([FAR, -1e9]).tolist() == [False, True]


def test_new_classes_beyond_the_reach_are_not_kept() -> None:
    assert NovelRows(np.array([FAR, FAR, 1.0, 2.0])).kept([-np.inf, KEEP_ALL.cut, 1.5]).tolist() == [0.5, 0.5, 0.25]
