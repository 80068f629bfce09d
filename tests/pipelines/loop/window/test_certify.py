"""A window of the log certifies a challenger, or is refused with the reason."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from kcm.cascade.policy import KEEP_ALL, Decision, Policy
from kcm.certification.certificate import CertificateConfig
from kcm.errors import DataError
from pipelines.loop.window.certify import can_certify_window, certify_window
from pipelines.store.records import Control, StoredLedger
from tests.pipelines.loop.windows import START, facts_of, judged_of, made_window

KEEP = Policy(decision=KEEP_ALL)
EXPIRES = START + timedelta(days=31)


def certified(
    window: pa.Table, policy: Policy = KEEP, *, scores: Any = None, labels: dict[str, str] | None = None, **options: Any
):
    if scores is None:
        scores = np.random.default_rng(9).normal(size=window.num_rows)
    known = {"delta": 0.06, "expires_at": EXPIRES}
    judged = judged_of(window, scores).with_labels(labels or {})
    return certify_window(judged, policy, CertificateConfig(), facts_of(window), **known | options)


def with_column(window: pa.Table, name: str, values: Any) -> pa.Table:
    return window.set_column(window.column_names.index(name), name, pa.array(values))


def test_agreement_certifies_and_names_the_window() -> None:
    """Promise: agreement certifies the searched threshold and names the window."""
    policy, certificates = certified(made_window(3000), Policy(decision=Decision.of(-1.0)))
    assert policy.decision == Decision.of(-1.0)
    certificate = certificates[None]
    assert certificate.bound < 0.02
    assert (certificate.window.after, certificate.window.upto) == (100, 3100)
    assert certificate.window.begins_at == START
    assert certificate.window.expires_at == EXPIRES
    assert 0.4 < certificate.window.num_asked / 3000 < 0.5


@pytest.mark.parametrize("how", ["lost", "pending", "degraded"])
def test_answers_that_never_came_count_as_disagreements(how: str) -> None:
    window = made_window(3000)
    asked = np.array([state == "answered" for state in window["state"].to_pylist()])
    gone = asked & (np.arange(3000) % 3 == 0)
    labels = [None if g else label for g, label in zip(gone, window["large_label"].to_pylist(), strict=True)]
    window = with_column(window, "large_label", labels)
    if how == "degraded":
        window = with_column(window, "route", np.where(gone, "small_degraded", window["route"].to_numpy()))
    else:
        state = {"lost": "lost", "pending": "drawn"}[how]
        states = [state if g else s for g, s in zip(gone, window["state"].to_pylist(), strict=True)]
        window = with_column(window, "state", states)
    assert certified(window)[0].decision != KEEP_ALL


def test_volunteered_labels_change_nothing() -> None:
    window = made_window(3000, rate=0.03)
    praised = with_column(window, "label", window["large_label"])
    assert certified(praised)[1][None] == certified(window)[1][None]


def test_task_thresholds_share_delta_and_empty_tasks_lose_it() -> None:
    """Promise: tasks with a threshold share delta and those without rows lose it."""
    window = with_column(made_window(6000), "task", np.where(np.arange(6000) % 2, "films", "books"))
    own = {"films": Decision.of(0.0), "music": KEEP_ALL}
    policy, certificates = certified(window, Policy(decision=KEEP_ALL, task_decisions=own))
    assert policy.task_decisions == {"films": Decision.of(0.0)}
    assert set(certificates) == {None, "films"}
    assert certificates["films"].num_rows == 3000
    assert certificates[None].delta == pytest.approx(0.02)


def test_fewest_units_certify_if_all_asked_and_agreeing() -> None:
    """Promise: their number, which says nothing of outcomes, tells it beforehand; ln(1 / .06) / -ln(.98) is 139.3."""
    for num_units, decision in ((139, "escalate_all"), (140, "keep_all")):
        window = made_window(num_units, share=1.0)
        judged, facts = judged_of(window), facts_of(window, share_floor=1.0)
        policy, _ = certify_window(judged, KEEP, CertificateConfig(), facts, delta=0.06, expires_at=EXPIRES)
        assert policy.decision.decision == decision
        enough = can_certify_window(judged, KEEP, CertificateConfig(), facts, delta=0.06)
        assert enough == (decision == "keep_all")


def people(window: pa.Table, losing: float, given: float = 1.0) -> dict[str, str]:
    """What people say of a share `given` of the disagreements; in a share `losing` the challenger is wrong."""
    rng, judged = np.random.default_rng(4), judged_of(window)
    disputed = judged.items[judged.asked & judged.disagrees]
    return {item: "no" if rng.random() < losing else "yes" for item in disputed if rng.random() < given}


def test_labels_certify_what_disagreement_cannot() -> None:
    """Promise: against people the challenger keeps what it may not keep against the large model."""
    window = made_window(12000, rate=0.05)
    assert certified(window)[0].decision != KEEP_ALL
    labels = people(window, losing=0.1)
    policy, certificates = certified(window, labels=labels)
    assert policy.decision == KEEP_ALL
    assert certificates[None].window.num_labels == len(labels)
    assert f"with {len(labels):,} labels of people" in certificates[None].statement
    assert certified(window, labels=people(window, losing=0.9))[0].decision != KEEP_ALL


def test_missing_labels_cannot_help() -> None:
    """Promise: a disagreement without a label is lost, so nobody gains by labelling what suits them."""
    window = made_window(12000, rate=0.05)
    assert certified(window, labels=people(window, losing=0.0, given=0.1))[0].decision != KEEP_ALL
    favourable = {item: label for item, label in people(window, losing=0.9).items() if label == "yes"}
    assert (
        certified(window, labels=favourable)[0].decision
        == certified(window, labels=people(window, losing=0.9))[0].decision
    )


def test_empty_window_and_probability_below_the_floor_are_refused() -> None:
    with pytest.raises(DataError, match="no decision of a certify unit"):
        certified(made_window(0))
    with pytest.raises(DataError, match="outside"):
        certified(with_column(made_window(100), "probability", [0.1, *[0.2] * 99]))


@pytest.fixture
def ledger(tmp_path: Path) -> StoredLedger:
    return StoredLedger.of_lineage(Control(tmp_path), "demo")


def test_restarted_attempt_may_spend_its_recorded_delta(ledger: StoredLedger) -> None:
    """One that was cut off after it had been written down is not taken for the next one, which may spend less."""
    first = ledger.look(0.1, "a")
    assert ledger.next_spend(0.1, "a") == first.spend > ledger.next_spend(0.1)
