"""What is foretold is what a certificate of rows that lose nothing says."""

import numpy as np
import pytest

from kcm.cascade.outcome_rows import ScoredOutcomes
from kcm.cascade.policy import Decision, Policy
from kcm.certification.certificate import CertificateConfig, certify_policy
from kcm.certification.ledger import question_delta
from kcm.certification.sample_size import outlook


def perfect(tasks: dict[str, int]) -> ScoredOutcomes:
    """Rows that both models answer rightly."""
    task = np.repeat(np.array(list(tasks), dtype=object), list(tasks.values()))
    right = np.ones(len(task), dtype=bool)
    score = np.random.default_rng(0).random(len(task))
    return ScoredOutcomes(score=score, small_correct=right, large_correct=right, large_error=~right, task=task)


def keeps(tasks: dict[str, int], config: CertificateConfig, scope: str) -> bool:
    """Whether the best case certifies that something is kept, in every task where tasks have their own decisions."""
    rows, cut = perfect(tasks), Decision(decision="threshold", threshold=0.5)
    policy = Policy(decision=cut, task_decisions=dict.fromkeys(tasks, cut) if scope == "per_task" else {})
    deployed, _ = certify_policy(rows, rows, policy, config, delta=question_delta(config.delta, 1))
    decisions = deployed.task_decisions.values() if scope == "per_task" else [deployed.decision]
    return all(each.decision != "escalate_all" for each in decisions)


@pytest.mark.parametrize("scope", ["global", "per_task"])
@pytest.mark.parametrize("more", [{}, {"method": "net"}, {"method": "regret"}])
@pytest.mark.parametrize("epsilon", [0.02, 0.05])
def test_needed_units_certify_and_one_less_does_not(scope: str, more: dict, epsilon: float) -> None:  # type: ignore[type-arg]
    config = CertificateConfig(epsilon=epsilon, **more)
    tasks = {"one": 50, "two": 50, "three": 50}
    found = outlook(tasks, config, [scope])  # type: ignore[list-item]
    enough = dict.fromkeys(tasks, found.needed) if scope == "per_task" else {"one": found.needed, "two": 0, "three": 0}
    enough = {task: count for task, count in enough.items() if count}
    fewer = enough | {"one": found.needed - 1}
    assert keeps(enough, config, scope)
    assert not keeps(fewer, config, scope)


@pytest.mark.parametrize("method", ["auto", "net"])
def test_at_epsilon_zero_all_needed_units_must_be_won(method: str) -> None:
    """So many wins certify, one less does not; no other outcomes of so few units could."""
    config = CertificateConfig(epsilon=0.0, method=method)  # type: ignore[arg-type]
    found = outlook({"all": 50}, config, ["global"])

    def is_certified(num_units: int) -> bool:
        right = np.ones(num_units, dtype=bool)
        rows = ScoredOutcomes(score=np.arange(1.0, num_units + 1), small_correct=right, large_correct=~right)
        policy = Policy(decision=Decision(decision="keep_all"))
        deployed, _ = certify_policy(rows, rows, policy, config, delta=question_delta(config.delta, 1))
        return deployed.decision.decision != "escalate_all"

    assert is_certified(found.needed)
    assert not is_certified(found.needed - 1)


def test_advised_epsilon_works_and_the_one_below_does_not() -> None:
    units = {"all": 98}
    found = outlook(units, CertificateConfig(epsilon=0.02), ["global"])
    assert not found.possible
    assert found.scopes == ()
    assert found.epsilon == pytest.approx(0.03)
    assert outlook(units, CertificateConfig(epsilon=0.03), ["global"]).possible
    assert not outlook(units, CertificateConfig(epsilon=0.025), ["global"]).possible
    assert found.times_the_rows == pytest.approx(found.needed / 98)


def test_a_scope_that_needs_fewer_units_is_found() -> None:
    found = outlook(dict.fromkeys("abc", 60), CertificateConfig(epsilon=0.02), ["global", "per_task"])
    assert (found.scope, found.possible, found.scopes) == ("global", True, ("global",))


def test_without_units_nothing_can_be_certified() -> None:
    found = outlook({"a": 0}, CertificateConfig(), ["global"])
    assert (found.epsilon, found.times_the_rows) == (None, float("inf"))
