"""What a policy makes of test queries: between the small ranking and large-only, a call at the price of its pairs."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.galleries.quality import Retrieved
from benchmarks.galleries.search import RetrievalConfig, candidates, queries
from kcm.cascade.policy import ESCALATE_ALL, KEEP_ALL, Decision, Policy

CONFIG = RetrievalConfig(top_k=(2, 5))


def test_keeping_all_is_the_small_ranking_and_escalating_all_is_large_only(galleries):
    candidate = candidates(galleries, CONFIG, ("confidence",), seed=0)[0]
    keep = Retrieved.of(galleries, candidate, Policy(decision=KEEP_ALL))
    assert (keep.cascade == galleries[2].small_ranks()).all()
    assert keep.share == 0
    escalate = Retrieved.of(galleries, candidate, Policy(decision=ESCALATE_ALL))
    assert (escalate.cascade == galleries[2].ranks("none", 2, 0.0)).all()
    assert escalate.share == 1
    assert escalate.difference().estimate == 0


def test_a_call_costs_as_many_pairs_as_it_scores(galleries):
    candidate = candidates(galleries, CONFIG, ("confidence",), seed=0)[0]
    half = Decision.of(float(np.median(candidate.score(queries(galleries, "test", candidate.choice)).score)))
    found = Retrieved.of(galleries, candidate, Policy(decision=half))
    assert found.share == pytest.approx((~found.kept).mean() * 2 / 60)
