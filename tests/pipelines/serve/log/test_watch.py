from __future__ import annotations

from kcm.cascade.policy import Decision
from kcm.certify.certificate import Certificate
from pipelines.serve.log.feedback import Audit, Labelled
from pipelines.serve.log.watch import Watch


def certificate(epsilon: float, method: str = "regret") -> Certificate:
    kept = Decision(decision="threshold", threshold=1.0)
    return Certificate(
        method=method,  # type: ignore[arg-type]
        epsilon=epsilon,
        delta=0.1,
        decision="threshold",
        threshold=1.0,
        bound=epsilon,
        valid=True,
        call_rate=0.5,
        call_rate_bound=None,
        searched=kept,
        certified=kept,
        num_rows=200,
        num_units=200,
        fewest_units=114,
        reason="",
    )


def audited(small: str, large: str | None, probability: float = 0.5) -> Audit:
    return Audit(0, "1", probability, small, large)


def test_disagreement_needs_no_label_and_shrinks_around_its_share() -> None:
    watch = Watch(certificate(0.02), 0.5)
    for number in range(400):
        watch.passed(1)
        watch.compared(0.5, agree=number % 10 > 0)  # a tenth of what half of the items show: 10% of all items
    low, high = watch.bounds.disagreement
    assert 0.02 < low < 0.1 < high < 0.2
    assert watch.bounds.regret == (0.0, 1.0)
    assert not watch.bounds.alarm


def test_the_alarm_is_raised_by_labels_that_refute_the_certificate_and_by_nothing_less() -> None:
    watch = Watch(certificate(0.05), 0.5)
    for _ in range(100):
        watch.labelled(Labelled("good", audited("good", "bad")))  # the small model was right to differ
    assert not watch.bounds.alarm
    for _ in range(100):
        watch.labelled(Labelled("good", audited("bad", "good")))
    assert watch.bounds.alarm
    assert watch.bounds.regret[0] > 0.05


def test_without_a_certificate_nothing_is_refuted() -> None:
    watch = Watch(None, 0.5)
    for _ in range(100):
        watch.labelled(Labelled("good", audited("bad", "good")))
    assert not watch.bounds.alarm


def test_where_wins_are_credited_they_count_against_losses() -> None:
    credited, plain = Watch(certificate(0.05, "net"), 0.5), Watch(certificate(0.05), 0.5)
    for _ in range(200):
        for watch in (credited, plain):
            watch.labelled(Labelled("good", audited("bad", "good")))
            watch.labelled(Labelled("good", audited("good", "bad")))
    assert plain.bounds.alarm
    assert not credited.bounds.alarm
    assert credited.bounds.regret[0] < 0 < credited.bounds.regret[1]


def test_an_audit_that_is_under_way_or_lost_is_held_back() -> None:
    watch = Watch(certificate(0.05), 0.5)
    for _ in range(200):
        watch.labelled(Labelled("good", audited("good", None)))
    assert watch.bounds.regret == (0.0, 1.0)
