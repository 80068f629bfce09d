"""Promotion gates pass what is shown, fail what is refuted, and leave to a person what the rows cannot decide."""

import numpy as np
import pytest

from kcm.certification.certificate import Certificate
from pipelines.registry.gates import (
    Paired,
    against,
    answers_probe,
    call_rate,
    certified,
    enough_rows,
    old_calls,
    old_tasks,
    overall,
    promise_kept,
    replay_panel,
)


def paired(both: int, champion_alone: int, challenger_alone: int, neither: int) -> Paired:
    champion = [True] * (both + champion_alone) + [False] * (challenger_alone + neither)
    challenger = [True] * both + [False] * champion_alone + [True] * challenger_alone + [False] * neither
    return Paired(np.array(champion), np.array(challenger))


def test_the_loss_of_an_old_task_has_the_published_interval() -> None:
    """The airway data of Fagerland, Lydersen and Laake (Stat. Med. 33, 2014): Tango's interval is -.517 to -.026."""
    (task,) = old_tasks({"airway": paired(1, 1, 7, 12)}, 0.01).figures["tasks"].values()
    assert task["loss"] == pytest.approx(-6 / 21)
    assert task["interval"] == pytest.approx([-0.517, -0.026], abs=5e-4)


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        (paired(950, 0, 0, 50), "pass"),
        (paired(900, 1, 9, 90), "pass"),
        (paired(900, 60, 10, 30), "fail"),
        (paired(300, 0, 0, 20), "undecided"),  # nothing lost, but 320 rows cannot show it
        (paired(900, 12, 8, 80), "undecided"),
        (paired(0, 0, 0, 0), "undecided"),
    ],
)
def test_old_task_passes_only_if_rows_show_small_loss(rows: Paired, verdict: str) -> None:
    """Promise: an old task passes only where the rows show that it loses little."""
    assert old_tasks({"films": rows}, 0.01).verdict == verdict


def test_tasks_with_too_few_rows_are_told_together() -> None:
    """Promise: each of these tasks alone is undecided; what they lose together can be told."""
    few = {f"task {number}": paired(300, 0, 0, 20) for number in range(5)}
    gate = old_tasks(few, 0.01)
    assert gate.verdict == "pass"
    assert {task["verdict"] for task in gate.figures["tasks"].values()} == {"undecided"}
    assert gate.figures["pooled"]["interval"][1] < 0.01


ONE_OF_TWO = {"films": paired(950, 0, 0, 50), "tweets": paired(800, 100, 0, 100)}


def test_one_old_task_that_fails_is_enough() -> None:
    gate = old_tasks(ONE_OF_TWO, 0.01)
    assert gate.verdict == "fail"
    assert "tweets" in gate.reason
    assert "films" not in gate.reason


def test_sentences_of_a_document_count_less_than_documents() -> None:
    """Promise: sentences of one document count less than as many documents."""
    rows = paired(950, 0, 0, 50)
    assert old_tasks({"t": rows}, 0.01).verdict == "pass"
    grouped = Paired(rows.champion, rows.challenger, np.repeat(np.arange(100), 10).astype(object))
    assert old_tasks({"t": grouped}, 0.01).verdict == "undecided"


@pytest.mark.parametrize(
    ("changed_since", "changed_at_random", "verdict"),
    [(0, 0, "pass"), (10, 0, "fail"), (6, 6, "pass"), (2, 0, "pass")],
)
def test_a_large_model_that_is_another_one_is_noticed(changed_since: int, changed_at_random: int, verdict: str) -> None:
    """Promise: an undecided model is no other model: it repeats its past as it repeats itself."""
    earlier = np.zeros(32, dtype=np.int64)
    first, second = earlier.copy(), earlier.copy()
    first[:changed_since] = 1
    second[:changed_since] = 1
    second[20 : 20 + changed_at_random] = 1
    gate = replay_panel(earlier, first, second)
    assert gate.verdict == verdict
    assert gate.figures["agreement_with_earlier"] == pytest.approx(1 - changed_since / 32)


def calls(share: float, rows: int = 1000) -> np.ndarray:
    return np.arange(rows) < share * rows


@pytest.mark.parametrize(
    ("champion", "challenger", "rows", "verdict"),
    [(0.6, 0.4, 1000, "pass"), (0.4, 0.4, 1000, "pass"), (0.4, 0.5, 1000, "fail"), (0.4, 0.45, 20, "undecided")],
)
def test_a_challenger_calls_no_more_often(champion: float, challenger: float, rows: int, verdict: str) -> None:
    assert call_rate(calls(champion, rows), calls(challenger, rows)).verdict == verdict


@pytest.mark.parametrize(
    ("loss", "signs", "feasible"),
    [((0.0, 0.3), (), True), ((0.021, 0.1), (), False), ((0.0, 0.01), ("its certificate is refuted",), False)],
)
def test_refuted_champion_is_infeasible(loss, signs, feasible) -> None:
    """Promise: a champion is infeasible where the window or the log refutes it."""
    gate = promise_kept(loss, 0.02, signs)
    assert (gate.verdict, gate.figures["feasible"]) == ("pass", feasible)


COMPARED = [
    old_tasks({"films": paired(300, 0, 0, 20)}, 0.01),
    call_rate(calls(0.4), calls(0.5)),
]


def test_calls_count_only_against_a_feasible_champion() -> None:
    """Promise: what may not answer is no measure for its successor; what was measured is told all the same."""
    holds = promise_kept((0.0, 0.01), 0.02)
    assert [gate.verdict for gate in against(holds, COMPARED)] == ["undecided", "fail"]
    idle = against(holds, COMPARED[:1], keeps=False)
    assert (overall(idle), "keeps nothing" in idle[0].reason) == ("pass", True)
    broken = against(promise_kept((0.05, 0.1), 0.02), COMPARED)
    assert overall(broken) == "pass"
    assert [gate.figures["measured_verdict"] for gate in broken] == ["undecided", "fail"]


def test_champion_without_certificate_decides_nothing() -> None:
    """A challenger with a promise may call more often than a champion without one."""
    bare = promise_kept((0.0, 0.01), 0.02, certified=False)
    assert (bare.verdict, bare.reason) == ("pass", "the champion has no certificate")
    assert {gate.verdict for gate in against(bare, COMPARED)} == {"pass"}


def test_proven_loss_always_fails() -> None:
    """Promise: a shown loss on old tasks fails beside any champion."""
    broken = promise_kept((0.05, 0.1), 0.02)
    shown = [old_tasks({"films": paired(900, 60, 10, 30)}, 0.01), old_tasks(ONE_OF_TWO, 0.01)]
    assert [gate.verdict for gate in against(broken, shown)] == ["fail"] * 2


@pytest.mark.parametrize(
    ("num_units", "repairs", "verdict"), [(500, False, "fail"), (50, False, "undecided"), (50, True, "pass")]
)
def test_escalate_all_challenger_passes_only_as_a_repair(num_units: int, repairs: bool, verdict: str) -> None:
    """Promise: beside a stopped champion, a large model that knows the new labels is worth a promotion."""
    certificate = Certificate.model_construct(  # type: ignore[call-arg]
        valid=True, decision="escalate_all", num_units=num_units, fewest_units=114, reason="nothing was certified"
    )
    assert certified(certificate, repairs=repairs).verdict == verdict


def test_a_version_that_saves_less_on_old_tasks_waits() -> None:
    """Promise: learning something new costs no savings on what was there, unless a person says so."""
    kept, nothing = np.ones(400, dtype=bool), np.zeros(400, dtype=bool)
    waits = old_calls(kept, nothing, 4098)
    assert waits.verdict == "undecided"
    assert "saves 0.0% of the calls, the champion 100.0%" in waits.reason
    assert "4,098 more certify units" in waits.reason
    assert old_calls(nothing, kept, 0).verdict == old_calls(kept, kept, 0).verdict == "pass"
    assert old_calls(kept[:0], kept[:0], 0).verdict == "pass"


def test_the_worst_verdict_counts() -> None:
    passed, undecided = answers_probe(None, 1), old_tasks({"t": paired(3, 0, 0, 0)}, 0.01)
    failed = answers_probe("gone", 1)
    assert overall([passed]) == "pass"
    assert overall([passed, undecided]) == "undecided"
    assert overall([undecided, failed, passed]) == "fail"


def test_too_little_data_or_no_panel_does_not_pass() -> None:
    """Promise: a window with too little to learn from and a panel without earlier answers do not pass."""
    assert (enough_rows(200, 200).verdict, enough_rows(199, 200).verdict) == ("pass", "fail")
    nothing = np.array([], dtype=np.int64)
    assert replay_panel(nothing, nothing, nothing).verdict == "undecided"
