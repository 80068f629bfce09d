"""A window of the log certifies a challenger, or is refused with the reason."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from kcm.cascade.policy import KEEP_ALL, Decision, Policy
from kcm.certify.certificate import CertificateConfig
from kcm.errors import DataError
from pipelines.loop.certify.labels import LabelDraw
from pipelines.loop.certify.recertify import certify_window, planned_bet
from tests.pipelines.loop.windows import START, made_window, scope_of

KEEP = Policy(decision=KEEP_ALL)


def certified(window: pa.Table, policy: Policy = KEEP, *, scope: dict[str, Any] | None = None, **options: Any):
    num = window.num_rows
    scores = options.pop("scores", np.random.default_rng(9).normal(size=num))
    asked = {"floor": 0.2, "delta": 0.06, "bet": 0.9, **options}
    return certify_window(
        window,
        scores,
        ["yes"] * num,
        policy,
        CertificateConfig(),
        scope=scope_of(window, **scope or {}),
        **asked,
    )


def with_column(window: pa.Table, name: str, values: Any) -> pa.Table:
    return window.set_column(window.column_names.index(name), name, pa.array(values))


def test_agreement_certifies_the_searched_threshold_and_names_the_window() -> None:
    policy, certificates = certified(made_window(3000), Policy(decision=Decision.of(-1.0)))
    assert policy.decision == Decision.of(-1.0)
    certificate = certificates[None]
    assert certificate.bound < 0.02
    assert (certificate.window.after, certificate.window.upto) == (100, 3100)
    assert certificate.window.begins_at == START
    assert certificate.window.expires_at == START + timedelta(minutes=3000, days=31)
    assert 0.4 < certificate.window.num_asked / 3000 < 0.5


def test_disagreement_gives_way_to_a_stricter_threshold_or_escalates_all() -> None:
    policy, _ = certified(made_window(6000, rate=0.04))
    assert policy.decision.decision == "threshold"
    policy, certificates = certified(made_window(300, rate=0.04))
    assert policy.decision.decision == "escalate_all"
    assert "at least" in certificates[None].reason


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


def test_tasks_with_a_threshold_share_delta_and_those_without_rows_lose_it() -> None:
    window = with_column(made_window(6000), "task", np.where(np.arange(6000) % 2, "films", "books"))
    own = {"films": Decision.of(0.0), "music": KEEP_ALL}
    policy, certificates = certified(window, Policy(decision=KEEP_ALL, task_decisions=own))
    assert policy.task_decisions == {"films": Decision.of(0.0)}
    assert set(certificates) == {None, "films"}
    assert certificates["films"].num_rows == 3000
    assert certificates[None].delta == pytest.approx(0.02)


def test_items_of_a_unit_count_as_one() -> None:
    window = with_column(made_window(3000), "unit", [f"u{i // 30}" for i in range(3000)])
    policy, certificates = certified(window)
    assert certificates[None].num_units == 100
    assert policy.decision.decision == "escalate_all"


def test_a_bet_is_planned_on_the_losses_of_validate_decisions() -> None:
    def planned(window: pa.Table, threshold: float = -9.0) -> float:
        num = window.num_rows
        policy = Policy(decision=Decision.of(threshold))
        return planned_bet(window, np.zeros(num), ["yes"] * num, policy, 0.02, 0.2)

    assert planned(made_window(0)) == planned(made_window(1000)) == 0.99
    assert planned(made_window(4000, rate=0.01)) < 0.9
    assert planned(made_window(4000, rate=0.01), threshold=1.0) == 0.99


def labelled(window: pa.Table, draw: LabelDraw, losing: float, skipped: float = 0.0) -> pa.Table:
    """The window after a person labelled what the attempt drew."""
    rng = np.random.default_rng(4)
    items = [f"{r}/{i}" for r, i in zip(window["request_id"].to_pylist(), window["item"].to_pylist(), strict=True)]
    rho = draw.probabilities(window["probability"].to_numpy(), 0.2)
    drawn = draw.drawn(items, rho) & np.array([label == "no" for label in window["large_label"].to_pylist()])
    states, labels = [], []
    for each in drawn:
        state = None if not each else "skipped" if rng.random() < skipped else "labelled"
        states.append(state)
        labels.append(("no" if rng.random() < losing else "yes") if state == "labelled" else None)
    window = with_column(window, "inbox_state", pa.array(states, pa.string()))
    window = with_column(window, "inbox_label", pa.array(labels, pa.string()))
    return with_column(
        window, "inbox_probability", pa.array([r if d else None for r, d in zip(rho, drawn, strict=True)])
    )


def test_labels_on_disagreements_certify_what_disagreement_cannot() -> None:
    window, draw = made_window(12000, rate=0.05), LabelDraw("attempt", 1.0)
    assert certified(window)[0].decision != KEEP_ALL
    policy, certificates = certified(labelled(window, draw, losing=0.1), labels=draw)
    assert policy.decision == KEEP_ALL
    assert certificates[None].method == "labelled"
    disputed = sum(label == "no" for label in window["large_label"].to_pylist())
    assert certificates[None].window.num_labels < 0.6 * disputed  # escalated items are drawn as seldom as others
    stricter, found = certified(labelled(window, draw, losing=0.9), labels=draw)
    assert stricter.decision.decision == "threshold"  # the closest one that the same labels allow
    assert 0.3 < found[None].call_rate < 0.9
    assert "stricter one" in found[None].reason


def test_skipped_and_unanswered_items_cannot_help() -> None:
    window, draw = made_window(12000, rate=0.05), LabelDraw("attempt", 1.0)
    assert certified(labelled(window, draw, losing=0.0, skipped=0.9), labels=draw)[0].decision != KEEP_ALL
    assert certified(window, labels=draw)[0].decision != KEEP_ALL


def test_half_of_the_labels_certify_as_well_when_that_was_announced() -> None:
    window, draw = made_window(20000, rate=0.05), LabelDraw("attempt", 0.5)
    answered = labelled(window, draw, losing=0.1)
    assert certified(answered, labels=draw)[0].decision == KEEP_ALL
    with pytest.raises(DataError, match="another probability"):
        certified(with_column(answered, "inbox_probability", pa.nulls(20000, pa.float64())), labels=draw)


def test_labels_of_another_attempt_are_refused() -> None:
    window = made_window(2000, rate=0.05)
    other = labelled(window, LabelDraw("another", 0.5), losing=0.1)
    with pytest.raises(DataError, match="not drawn by attempt this"):
        certified(other, labels=LabelDraw("this", 0.5))


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("model_version", ["", *["reviews/1"] * 99], "no version"),
        ("unit", pa.array([None, *["u"] * 99]), "no version or unit"),
        ("audit_share", [0.0, *[0.2] * 99], "nothing was audited when 1 "),
        ("probability", [0.0, *[0.2] * 99], "no probability"),
        ("probability", pa.array([None, *[0.2] * 99]), "no probability"),
        ("probability", [0.1, *[0.2] * 99], "outside"),
        ("large_identity", ["large-2", *["large-1"] * 99], "another large model, large-2"),
        ("number", [5, *range(101, 200)], "outside the window"),
    ],
)
def test_decisions_that_void_the_promise_are_refused(column: str, values: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        certified(with_column(made_window(100), column, values))


@pytest.mark.parametrize(
    ("scope", "message"),
    [
        ({"promoted_after": 101}, "before the champion was promoted"),
        ({"alarm": 150}, "raised the alarm"),
        ({"num_missing": 1}, "missing from the log, 0.99%"),
        ({"trained_units": {"u7"}}, "1 decisions are of units"),
        ({"prompt": "soft"}, "prompt `none`"),
        ({"now": START - timedelta(days=5)}, "not come yet"),
    ],
)
def test_windows_that_void_the_promise_are_refused(scope: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        certified(made_window(100), scope=scope)


def test_one_missing_decision_in_a_thousand_is_no_reason() -> None:
    certified(made_window(2000), scope={"num_missing": 2})


def test_decisions_of_other_purposes_and_a_challenger_of_other_rows_are_refused() -> None:
    window = made_window(100)
    with pytest.raises(DataError, match="no certify unit"):
        certified(window.append_column("purpose", pa.array(["train", *["certify"] * 99])))
    with pytest.raises(DataError, match="100 decisions, 99 gate scores"):
        certified(window, scores=np.zeros(99))
    with pytest.raises(DataError, match="hold none"):
        certified(made_window(0), scope={"upto": 150})
