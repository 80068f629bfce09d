"""The certificate: what is deployed, what is promised, and that the promise is kept over repeated draws."""

import numpy as np
import pytest
from scipy.stats import beta

from kcm.cascade.frontier import Frontier
from kcm.cascade.outcome_rows import ScoredOutcomes
from kcm.cascade.policy import ESCALATE_ALL, KEEP_ALL, Decision, Policy
from kcm.certification.certificate import (
    CertificateConfig,
    certify,
    certify_policy,
    why_not_promotable,
)

_CUT = Decision(decision="threshold", threshold=0.5)


def _search(rows, max_loss=0.005):
    return Decision.of(Frontier.of(rows).cheapest(max_loss).threshold)


def _true_loss(rows, decision):
    return Frontier.of(rows).at(decision.cut).loss


def test_passing_threshold_is_deployed_with_its_bound(draw):
    validate, rows = draw(3000, 0, skill=4, ease=3), draw(3000, 1, skill=4, ease=3)
    certificate = certify(validate, rows, Decision.of(0.8), CertificateConfig(method="regret"))
    assert certificate.route == Decision.of(0.8)
    lost = int(((rows.score > 0.8) & ~rows.small_correct & rows.large_correct).sum())
    assert certificate.bound == pytest.approx(beta.ppf(0.9, lost + 1, 3000 - lost))
    assert certificate.bound < 0.02
    assert certificate.call_rate == (rows.score <= 0.8).mean()
    assert certificate.reason == "the searched decision is certified"


def test_failing_threshold_is_replaced_by_certified_one(draw):
    validate, rows = draw(3000, 0), draw(3000, 1)
    certificate = certify(validate, rows, Decision.of(-2.0), CertificateConfig(method="regret"))
    assert certificate.route == certificate.certified
    assert certificate.threshold > -2.0
    assert certificate.bound == certificate.epsilon
    assert "did not pass" in certificate.reason


def test_a_stricter_search_is_not_loosened(draw):
    validate, rows = draw(3000, 0), draw(3000, 1)
    certificate = certify(validate, rows, Decision.of(2.5), CertificateConfig(method="regret"))
    assert certificate.certified.cut < certificate.threshold == 2.5


def test_auto_takes_no_method_that_so_few_units_cannot_pass():
    """120 units are enough for `regret` (114), not for `net` (135), which the wins on validate speak for."""
    validate = ScoredOutcomes(
        score=np.linspace(0, 1, 400), small_correct=np.ones(400, bool), large_correct=np.arange(400) % 10 > 0
    )
    rows = ScoredOutcomes(
        score=np.linspace(0, 1, 120), small_correct=np.ones(120, bool), large_correct=np.ones(120, bool)
    )
    config = CertificateConfig(epsilon=0.02, delta=0.1)
    found = certify(validate, rows, KEEP_ALL, config)
    assert (found.method, found.decision) == ("regret", "keep_all")


@pytest.mark.parametrize(("method", "fewest"), [("regret", 114), ("net", 135)])
def test_too_few_rows_escalate_all_and_say_how_many_are_needed(draw, method, fewest):
    config = CertificateConfig(method=method)
    perfect = {"small_correct": np.ones(fewest), "large_correct": np.ones(fewest)}
    rows = ScoredOutcomes(score=np.arange(fewest), **perfect)
    assert certify(rows, rows, KEEP_ALL, config).route == KEEP_ALL
    certificate = certify(rows, rows.select(np.arange(fewest - 1)), KEEP_ALL, config)
    assert certificate.route == ESCALATE_ALL
    assert certificate.valid
    assert certificate.bound == 0
    assert certificate.reason == f"nothing is certified: {fewest - 1} units, at least {fewest} are needed"


def test_a_search_that_escalates_all_needs_no_test(draw):
    certificate = certify(draw(500), draw(500, 1), ESCALATE_ALL, CertificateConfig())
    assert (certificate.route, certificate.bound, certificate.call_rate) == (ESCALATE_ALL, 0, 1)
    assert certificate.reason == "the search escalates all"


def test_auto_takes_net_where_the_small_model_is_better():
    def draw(seed):
        rng = np.random.default_rng(seed)
        columns = {"small_correct": rng.random(2000) < 0.9, "large_correct": rng.random(2000) < 0.8}
        return ScoredOutcomes(score=rng.normal(size=2000), **columns)

    certificate = certify(draw(0), draw(1), KEEP_ALL, CertificateConfig())
    assert (certificate.method, certificate.route) == ("net", KEEP_ALL)
    assert certificate.bound < 0  # promised to be better than the large model
    assert certify(draw(0), draw(1), KEEP_ALL, CertificateConfig(method="regret")).route != KEEP_ALL


def test_auto_tests_strict_by_regret_and_lenient_by_wins():
    """A hundredth of all rows is lost, and a fifth of the lower ones is won: neither test gets far alone."""

    def draw(seed: int, num_rows: int) -> ScoredOutcomes:
        rng = np.random.default_rng(seed)
        score = rng.random(num_rows)
        won, lost = (score < 0.6) & (rng.random(num_rows) < 0.2), rng.random(num_rows) < 0.012
        return ScoredOutcomes(score=score, small_correct=~lost, large_correct=lost | ~won)

    def kept(method: str, rows: ScoredOutcomes) -> float:
        found = certify(draw(0, 2000), rows, KEEP_ALL, CertificateConfig(method=method))
        return 1 - found.call_rate

    drawn = [draw(seed, 250) for seed in range(1, 61)]
    mean = {method: np.mean([kept(method, rows) for rows in drawn]) for method in ("auto", "net", "regret")}
    assert mean["auto"] > max(mean["net"], mean["regret"]) + 0.05, mean


def test_auto_does_not_look_at_the_certify_rows_to_choose(draw):
    """A threshold so strict that it is always certified is so by the same test whatever the rows."""
    validate = draw(2000, 0, skill=4, ease=3)
    several = [
        certify(validate, draw(2000, n, skill=4, ease=3), Decision.of(0.8), CertificateConfig()) for n in range(1, 9)
    ]
    assert {certificate.reason for certificate in several} == {"the searched decision is certified"}
    assert len({certificate.method for certificate in several}) == 1


def test_a_policy_per_task_shares_delta_among_all_its_decisions(draw):
    tasks = np.array(["a", "b"] * 1500, dtype=object)
    validate, rows = draw(3000, 0, skill=4, ease=3, task=tasks), draw(3000, 1, skill=4, ease=3, task=tasks)
    policy = Policy(
        decision=Decision.of(1.0), task_decisions={"a": Decision.of(0.9), "b": KEEP_ALL, "unseen": KEEP_ALL}
    )
    deployed, certificates = certify_policy(validate, rows, policy, CertificateConfig(method="regret"))
    assert set(certificates) == {None, "a", "b"}
    assert {certificate.delta for certificate in certificates.values()} == {0.025}
    assert deployed.task_decisions == {task: certificates[task].route for task in ("a", "b")}
    assert deployed.decision == certificates[None].route
    assert deployed.decision_for("unseen") == deployed.decision
    alone = certify(
        validate.by_task()["a"], rows.by_task()["a"], Decision.of(0.9), CertificateConfig(method="regret"), delta=0.025
    )
    assert certificates["a"] == alone


def _violations(truth, validate, config, *, num_rows, draws=1000, group_size=None):
    """Share of certify draws, with replacement from `truth`, whose deployed decision truly loses more than epsilon."""
    rng, broken, searched = np.random.default_rng(0), 0, _search(validate, 0.02)
    for _ in range(draws):
        if group_size is None:
            index = rng.integers(len(truth), size=num_rows)
        else:
            starts = rng.integers(len(truth) // group_size, size=num_rows // group_size) * group_size
            index = (starts[:, None] + np.arange(group_size)).ravel()
        rows = truth.select(index)
        if group_size is not None:
            rows = ScoredOutcomes(
                score=rows.score,
                small_correct=rows.small_correct,
                large_correct=rows.large_correct,
                group=np.repeat(np.arange(num_rows // group_size), group_size).astype(object),
            )
        certificate = certify(validate, rows, searched, config)
        broken += _true_loss(truth, certificate.route) > min(config.epsilon, certificate.bound) + 1e-12
    return broken / draws


@pytest.mark.parametrize("method", ["regret", "net", "auto"])
@pytest.mark.slow
def test_the_promise_is_broken_no_more_often_than_delta(draw, method):
    # The searched threshold truly loses about epsilon, where a test is hardest put to it; every bound is checked too.
    truth, validate = draw(3000, 3, ease=1.2, large=0.95), draw(500, 4, ease=1.2, large=0.95)
    rate = _violations(truth, validate, CertificateConfig(epsilon=0.05, method=method), num_rows=500)
    assert rate <= 0.116


def test_the_promise_is_kept_for_grouped_rows(draw):
    # The rows of a group are copies: taken as independent they would seem four times as many as they are.
    base = draw(800, 3, ease=1.2, large=0.95)
    truth = base.select(np.repeat(np.arange(800), 4))
    rate = _violations(
        truth, base, CertificateConfig(epsilon=0.05, method="regret"), num_rows=1600, draws=300, group_size=4
    )
    assert rate <= 0.13


def test_escalate_all_policy_is_uncertified_with_a_reason() -> None:
    right = np.ones(20, dtype=bool)
    rows = ScoredOutcomes(score=np.arange(20.0), small_correct=right, large_correct=right, large_error=~right)
    deployed, certificates = certify_policy(rows, rows, Policy(decision=_CUT), CertificateConfig(epsilon=0.01))
    assert why_not_promotable(deployed, certificates) == (
        "it escalates everything, because nothing is certified: 20 units, at least 230 are needed"
    )
    assert why_not_promotable(deployed.model_copy(update={"task_decisions": {"a": _CUT}}), certificates) is None
