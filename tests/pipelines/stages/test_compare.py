"""Promise: a certify row that takes another route, or is answered otherwise, in another runtime is found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kcm.bundle.bundle import Bundle
from kcm.cascade.policy import ESCALATE_ALL, Decision, Policy
from kcm.large import Prompts
from pipelines.stages.compare import decisions, different
from tests.kcm.bundle.test_bundle import bundle

NUM = 40
LARGE_N = np.zeros(NUM, dtype=np.int64)


@pytest.fixture
def features_ND() -> Any:
    return np.random.default_rng(1).normal(size=(NUM, bundle().collaborator.in_features)).astype(np.float32)


def deployed(features_ND: Any, **policy: Any) -> Bundle:
    """A cascade that keeps about half of these rows."""
    one = bundle(policy=Policy())
    scores = one.gate.score(features_ND, *_logits(one, features_ND))
    threshold = float(np.sort(scores)[NUM // 2 : NUM // 2 + 2].mean())
    decision = Decision(decision="threshold", threshold=threshold)
    return bundle(policy=Policy(decision=decision, **policy), prompts=Prompts(top_k=2))


def _logits(one: Bundle, features_ND: Any) -> Any:
    from kcm.bundle.runtime import logits

    return logits(one.collaborator, features_ND)


def test_features_that_differ_in_their_last_digits_change_nothing(features_ND: Any) -> None:
    one = deployed(features_ND)
    here, there = (decisions(one, rows_ND, LARGE_N, "tweets") for rows_ND in (features_ND, features_ND * (1 + 1e-7)))
    assert 0 < here["with task"].sum() < NUM
    assert not different(here, there).any()


def test_a_row_that_takes_another_route_is_found_and_no_other(features_ND: Any) -> None:
    one = deployed(features_ND)
    here = decisions(one, features_ND, LARGE_N, "tweets")
    kept, escalated = (int(np.flatnonzero(here["with task"] == keeps)[0]) for keeps in (True, False))
    moved_ND = features_ND.copy()
    moved_ND[escalated] = features_ND[kept]
    assert np.flatnonzero(different(here, decisions(one, moved_ND, LARGE_N, "tweets"))).tolist() == [escalated]


def test_an_answer_of_the_large_model_is_found_on_kept_rows_too(features_ND: Any) -> None:
    one = deployed(features_ND)
    here = decisions(one, features_ND, LARGE_N, "tweets")
    kept = int(np.flatnonzero(here["with task"])[0])
    other_N = LARGE_N.copy()
    other_N[kept] = 1  # the loss is against what it would have answered
    assert np.flatnonzero(different(here, decisions(one, features_ND, other_N, "tweets"))).tolist() == [kept]


def test_the_route_counts_with_and_without_the_task(features_ND: Any) -> None:
    one = deployed(features_ND, task_decisions={"movies": ESCALATE_ALL})
    found = decisions(one, features_ND, LARGE_N, "movies")
    assert not found["with task"].any()
    assert found["without task"].any()
