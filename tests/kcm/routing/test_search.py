"""The searched threshold against trying every threshold, and the reasons of keep all and escalate all."""

from __future__ import annotations

import json

import numpy as np
import pytest

from kcm.cascade.scored import ScoredOutcomes
from kcm.routing.search import POINTS, search


def rows(num_rows: int, small: float, large: float, seed: int = 0) -> ScoredOutcomes:
    rng = np.random.default_rng(seed)
    score = rng.integers(0, 12, num_rows) / 4
    right = rng.random(num_rows) < np.clip(small + (score - score.mean()) / 6, 0, 1)
    return ScoredOutcomes(score=score, small_correct=right, large_correct=rng.random(num_rows) < large)


@pytest.mark.parametrize("seed", range(8))
def test_no_threshold_calls_less_at_the_allowed_loss(seed: int) -> None:
    scored = rows(60, 0.6, 0.9, seed)
    found = search(scored, 0.05)
    allowed = []
    for cut in (np.inf, -np.inf, *np.unique(scored.score)):
        kept = scored.score > cut
        loss = scored.large_correct.mean() - np.where(kept, scored.small_correct, scored.large_correct).mean()
        if loss <= 0.05 + 1e-12:
            allowed.append((~kept).mean())
    assert found["call_rate"] == pytest.approx(min(allowed))
    assert found["loss"] <= 0.05 + 1e-12


@pytest.mark.parametrize(
    ("scored", "decision", "reason"),
    [
        (rows(200, 0.9, 0.5), "keep_all", "at least as good as the large one"),
        (ScoredOutcomes(score=[1.0, 2.0], small_correct=[0, 0], large_correct=[1, 1]), "escalate_all", "loses more"),
        (ScoredOutcomes(score=[1.0], small_correct=[1], large_correct=[1]), "keep_all", "at least as good"),
        (rows(200, 0.75, 0.9), "threshold", "fewest calls"),
    ],
)
def test_every_decision_has_its_reason(scored: ScoredOutcomes, decision: str, reason: str) -> None:
    found = search(scored, 0.01)
    assert (found["decision"], found["threshold"] is None) == (decision, decision != "threshold")
    assert reason in found["reason"]
    json.dumps(found, allow_nan=False)


def test_a_long_frontier_is_thinned_between_its_ends() -> None:
    score = np.arange(5000.0)
    right = score % 3 > 0
    curve = search(ScoredOutcomes(score=score, small_correct=right, large_correct=~right), 0.0)["frontier"]
    assert len(curve["call_rate"]) == POINTS
    assert (curve["call_rate"][0], curve["call_rate"][-1]) == (1.0, 0.0)
    assert (curve["threshold"][0], curve["threshold"][-1]) == (None, None)
