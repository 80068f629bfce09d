"""Promise: bad challengers are stopped and good ones pass, each with the probability that was promised."""

import numpy as np
import pytest

from kcm.certification.monitoring.trial import Limits, Requests, StageVerdict, judge

LIMITS = Limits(error_rate=0.01, slow_s=0.5, slow_rate=0.05, disagreement=0.03)
SHARES = (0.01, 0.05, 0.25, 1.0)


def simulated(
    rng: np.random.Generator,
    *,
    errors: float = 0.0,
    slow: float = 0.01,
    disagreement: float = 0.005,
    per_stage: int = 1000,
    lost: float = 0.0,
    audit_share: float = 0.2,
) -> Requests:
    """Requests of one item each, over all stages; those up to 5% are audited wholly."""
    stage = np.repeat(np.arange(1, len(SHARES) + 1), per_stage)
    count = len(stage)
    share = np.where(stage <= 2, 1.0, audit_share)
    looked = rng.random(count) < share
    differs = rng.random(count) < disagreement
    missing = rng.random(count) < lost
    return Requests(
        stage=stage,
        num_items=np.ones(count, int),
        failed=rng.random(count) < errors,
        seconds=np.where(rng.random(count) < slow, 1.0, 0.1),
        lost_low=looked * (differs & ~missing) / share,
        lost_high=looked * (differs | missing) / share,
        share=share,
    )


def until(requests: Requests, stage: int) -> Requests:
    chosen = requests.stage <= stage
    return Requests(**{name: value[chosen] for name, value in vars(requests).items()})


def verdicts(requests: Requests, limits: Limits = LIMITS) -> list[StageVerdict]:
    """Of all stages, each judged at its end."""
    return [
        judge(until(requests, stage), limits, 0.1, stage=stage, share=share, num_stages=len(SHARES))
        for stage, share in enumerate(SHARES, start=1)
    ]


def promoted(requests: Requests) -> bool:
    return all(each.verdict == "pass" for each in verdicts(requests))


def test_good_challenger_passes_every_stage() -> None:
    rng = np.random.default_rng(0)
    assert sum(promoted(simulated(rng)) for _ in range(40)) >= 36


@pytest.mark.parametrize("bad", [{"errors": 0.01}, {"slow": 0.05}, {"disagreement": 0.03}])
def test_a_challenger_at_a_limit_is_seldom_promoted(bad: dict[str, float]) -> None:
    """Promise: at most delta of those that are as bad as a limit pass all stages; here 10%."""
    rng = np.random.default_rng(1)
    assert sum(promoted(simulated(rng, **bad)) for _ in range(60)) <= 6


@pytest.mark.parametrize(
    ("bad", "named"), [({"errors": 0.1}, "errors"), ({"slow": 0.4}, "slow"), ({"disagreement": 0.2}, "disagreement")]
)
def test_bad_challenger_fails_the_first_stage_with_reason(bad: dict[str, float], named: str) -> None:
    first = verdicts(simulated(np.random.default_rng(2), **bad))[0]
    assert first.verdict == "refuted"
    assert first.reason.startswith(f"{named}: ")
    assert "exceed their limit" in first.reason


def test_challenger_that_turns_bad_late_is_refuted() -> None:
    rng = np.random.default_rng(3)
    good, bad = simulated(rng), simulated(rng, disagreement=0.3)
    late = good.stage >= 3
    requests = Requests(**{name: np.where(late, getattr(bad, name), value) for name, value in vars(good).items()})
    assert [each.verdict for each in verdicts(requests)] == ["pass", "pass", "refuted", "refuted"]


def test_good_challengers_are_refuted_at_most_delta() -> None:
    """Promise: whatever their audits and however often one looks; here at the limits' halves, 60 trials."""
    rng = np.random.default_rng(4)
    halves = {"errors": 0.005, "slow": 0.025, "disagreement": 0.015}
    refuted = ["refuted" in [each.verdict for each in verdicts(simulated(rng, **halves))] for _ in range(60)]
    assert sum(refuted) <= 6


def test_missing_large_answers_refute_nobody_and_show_nothing() -> None:
    found = verdicts(simulated(np.random.default_rng(5), lost=0.5))
    assert {each.verdict for each in found} == {"undecided"}
    assert "disagreement" in found[0].reason


def test_too_few_requests_decide_nothing() -> None:
    few = verdicts(simulated(np.random.default_rng(6), per_stage=20))[0]
    assert few.verdict == "undecided"
    assert (few.num_requests, few.num_decisions) == (20, 20)
    none = judge(until(simulated(np.random.default_rng(7)), 0), LIMITS, 0.1, stage=1, share=0.01, num_stages=4)
    assert none.verdict == "undecided"
