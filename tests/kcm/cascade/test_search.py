"""The search gives the cheapest policy on its rows."""

import numpy as np
import pytest

from kcm.cascade.frontier import Frontier
from kcm.cascade.gate import Gate
from kcm.cascade.novelty import NovelRows
from kcm.cascade.outcome_rows import ScoredOutcomes
from kcm.cascade.search import find_policy


def make_rows(num_rows: int, seed: int = 0) -> ScoredOutcomes:
    """Two tasks: an easy one that the small model masters, and a hard one where it guesses below a score."""
    rng = np.random.default_rng(seed)
    task = np.array(["easy", "hard"], dtype=object)[rng.integers(0, 2, num_rows)]
    score = rng.normal(size=num_rows)
    chance = np.where(task == "easy", 0.99, 1 / (1 + np.exp(-4 * score)))
    return ScoredOutcomes(
        score=score,
        small_correct=rng.random(num_rows) < chance,
        large_correct=rng.random(num_rows) < 0.95,
        task=task,
    )


def loss(rows: ScoredOutcomes, kept: np.ndarray) -> float:
    return float(rows.large_correct.mean() - np.where(kept, rows.small_correct, rows.large_correct).mean())


def test_goal_accuracy_finds_the_most_accurate_threshold() -> None:
    """No threshold is more accurate, and none as accurate calls less: all of them are tried."""
    rows = make_rows(400)
    found = find_policy(rows, Gate(), "global", 0.0, goal="accuracy")
    assert found.policy.goal == "accuracy"

    def standing(cut: float) -> tuple[float, float]:
        kept = rows.score > cut
        return round(-loss(rows, kept), 9), kept.mean()

    best = max(standing(cut) for cut in [-np.inf, *rows.score])
    assert standing(found.policy.decision.cut) == best
    assert found.calls_saved == pytest.approx(best[1])


def test_thresholds_per_task_limit_each_loss_and_save_more() -> None:
    rows = make_rows(2000)
    common, own = (find_policy(rows, Gate(), scope, 0.01) for scope in ("global", "per_task"))
    for task, part in rows.by_task().items():
        assert loss(part, own.policy.keep(part.score, part.task)) <= 0.01 + 1e-9, task
    assert own.calls_saved == pytest.approx(own.policy.keep(rows.score, rows.task).mean())
    assert own.calls_saved > common.calls_saved
    assert common.policy.scope == "global"
    assert own.policy.scope == "per_task"


def test_kept_unknown_classes_count_as_lost_by_share() -> None:
    rows, max_loss = make_rows(2000), 0.02
    novel = NovelRows(np.random.default_rng(1).normal(-0.5, 1, 500), share=0.1)
    cut = find_policy(rows, Gate(), "global", max_loss, novel).policy.decision.cut

    def mixed(threshold: float) -> float:
        return 0.9 * loss(rows, rows.score > threshold) + 0.1 * float((novel.scores > threshold).mean())

    assert mixed(cut) <= max_loss
    assert cut == pytest.approx(min(t for t in Frontier.of(rows).thresholds if mixed(t) <= max_loss))
    assert cut > find_policy(rows, Gate(), "global", max_loss).policy.decision.cut
