"""What the log says of a version's promise, and what cannot make it say something else."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from kcm.certification.certificate import Certificate
from pipelines.serve.config import FeedbackConfig
from pipelines.serve.log.alarm import DecisionAlarm
from pipelines.serve.log.decisions import DecisionLog, Tally
from pipelines.serve.log.entries import Feedback, LoggedDecision, Origin
from pipelines.serve.log.monitor import Bounds, Monitor, bounds
from pipelines.serve.log.tables import VERSIONS
from pipelines.serve.log.writer import LogWriter
from tests.kcm.bundle.test_bundle import certificate as issued
from tests.pipelines.serve.stubs import NoMetrics


def certificate(epsilon: float, method: str = "regret") -> Certificate:
    return issued().model_copy(update={"epsilon": epsilon, "bound": epsilon, "method": method})


def audited(number: int, share: float = 1.0, **known: Any) -> Tally:
    return Tally(number, share, "small", **{"state": "answered"} | known)


@pytest.fixture
def log(url: str) -> Iterator[DecisionLog]:
    log = DecisionLog(url, 30.0)
    yield log
    log.close()


class Traffic:
    """Answers items of version 1, each drawn with a share, audits them and lets their labels come."""

    def __init__(self, log: DecisionLog, share: float, seed: int = 0) -> None:
        self._log, self._share, self._rng = log, share, np.random.default_rng(seed)
        self._number = 0

    def answer(self, number: int, disagree: float = 0.0) -> None:
        """Kept items differ from the large model with probability `disagree`."""
        origin = Origin(f"r{self._number}")
        self._number += 1
        drawn_N = self._rng.random(number) < self._share
        differs_N = self._rng.random(number) < disagree
        self._log.add_decisions(
            [
                LoggedDecision(origin, item, "1", "small", self._share, bool(drawn), "small's")
                for item, drawn in enumerate(drawn_N)
            ]
        )
        drawn = np.flatnonzero(drawn_N).tolist()
        labels = {item: "large's" if differs_N[item] else "small's" for item in drawn}
        self._log.finish_audits(origin.request_id, labels)


async def test_a_clock_that_is_set_back_by_an_hour_stops_no_watch(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: decisions, labels and the alarm go on, in the replica that watched and in one that starts."""
    now = [datetime(2026, 3, 1, 12, tzinfo=UTC)]
    for module in ("decisions", "monitor"):
        monkeypatch.setattr(f"pipelines.serve.log.{module}.utc_now", lambda: now[0])

    def answer(log: LogWriter, first: int) -> None:
        log.add_decisions(
            [
                LoggedDecision(Origin(f"r{item}"), 0, "1", "small", 1.0, True, "small's", answered_at=now[0])
                for item in range(first, first + 20)
            ]
        )

    async def watch(log: LogWriter, first: int) -> Bounds | None:
        answer(log, first)
        await log.flush()
        for item in range(first, first + 20):
            await log.call(DecisionLog.finish_audits, f"r{item}", {0: "large's"})
            await log.add_feedback(f"r{item}", None, [Feedback(0, "large's")])
        return await Monitor(log, "1", certificate(0.5), NoMetrics()).check()  # type: ignore[arg-type]

    first, second = (LogWriter(FeedbackConfig(timeout_s=10.0), url) for _ in range(2))
    before = await watch(first, 0)
    now[0] -= timedelta(hours=1)
    started, after = await watch(second, 20), await watch(first, 40)
    for log in (first, second):
        log.close()
    assert before is not None
    assert started is not None
    assert after is not None
    assert (before.num_items, started.num_items, after.num_items, after.alarm) == (20, 40, 60, True)


def test_degraded_items_do_not_dilute_the_bounds() -> None:
    """Promise: 300 items that all differ say the same whether or not 5,000 degraded ones follow."""
    differing = [audited(300, agrees=False)]
    before, after = (bounds([*differing, *more], None) for more in ([], [Tally(5000, 1.0, "small_degraded")]))
    assert after.disagreement == before.disagreement
    assert after.disagreement[0] > 0.95
    assert after.num_items == 300


def test_selective_labels_cannot_raise_a_false_alarm(log: DecisionLog) -> None:
    """Promise: labels that come only where an answer was wrong, as complaints do, do not exaggerate."""
    traffic, rng = Traffic(log, share=0.5), np.random.default_rng(1)
    for number in range(20):
        traffic.answer(200, disagree=0.05)
        log.add_feedback(f"r{number}", None, [Feedback(item, "large's") for item in range(200) if rng.random() < 0.3])
    found = bounds(log.tallies("1"), certificate(0.05))
    assert not found.alarm  # the loss is .05 where every label is `large's`; 0.3 of that is known
    assert found.regret[0] < 0.015 < 0.05 < found.regret[1]


@pytest.mark.parametrize("label_first", [False, True])
def test_true_label_counts_once_before_or_after_its_audit(log: DecisionLog, label_first: bool) -> None:
    """Promise: a true label counts once whether it comes before or after the audit ends."""
    log.add_decisions([LoggedDecision(Origin("r"), 0, "1", "small", 0.5, True, "bad")])
    steps = [lambda: log.add_feedback("r", None, [Feedback(0, "good")]), lambda: log.finish_audits("r", {0: "good"})]
    for step in steps if label_first else reversed(steps):
        step()
        step()
    assert log.tallies("1") == [audited(1, 0.5, agrees=False, small_right=False, large_right=True)]


def test_only_labels_that_refute_raise_the_alarm() -> None:
    """Promise: the alarm is raised by labels that refute the certificate and by nothing less."""
    right = audited(100, agrees=False, small_right=True, large_right=False)  # the small model was right to differ
    wrong = audited(100, agrees=False, small_right=False, large_right=True)
    assert not bounds([right, Tally(100, 1.0, "large")], certificate(0.05)).alarm
    found = bounds([right, wrong], certificate(0.05))
    assert found.alarm
    assert found.regret[0] > 0.05
    assert not bounds([right, wrong], None).alarm


class Recorder:
    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def set_bounds(self, version: str, **found: Any) -> None:
        self.seen.append(found)


def writer_of(url: str) -> LogWriter:
    return LogWriter(FeedbackConfig(timeout_s=30.0), url)


def watching(url: str, promised: Certificate, act: Callable[[bool], None] = lambda refuted: None) -> Monitor:
    """The monitor of a replica of its own."""
    return Monitor(writer_of(url), "1", promised, Recorder(), act)


async def test_an_alarm_outlives_its_process_and_a_good_time(url: str, log: DecisionLog) -> None:
    """Promise: there is one sequence for a version, however many replicas look at it."""
    traffic, promised = Traffic(log, share=1.0), certificate(0.2)
    traffic.answer(100, disagree=1.0)
    log.add_feedback("r0", None, [Feedback(item, "large's") for item in range(100)])
    assert await watching(url, promised).check()
    (record,) = log.read(VERSIONS)
    assert (record["revision"], record["alarms"]["after"]) == (1, 100)
    for _ in range(5):
        traffic.answer(400)  # a good time afterwards
    found = await watching(url, promised).check()
    assert found is not None
    assert found.alarm
    assert found.regret[0] < 0.2
    assert log.read(VERSIONS)[0]["alarms"]["after"] == 2100


def test_overtaken_process_writes_nothing(url: str, log: DecisionLog) -> None:
    """Promise: what is written follows on what was read; who is late finds out, and reads."""
    first, second = (DecisionLog(url, 30.0) for _ in range(2))
    assert first.alarms("1").revision == second.alarms("1").revision == 0
    assert second.put_alarms("1", 0, {"first": True})
    assert not first.put_alarms("1", 0, {"late": True})
    assert first.alarms("1").state == {"first": True}


@pytest.mark.parametrize(("method", "labelled"), [("regret", True), ("traffic", False)])
async def test_late_loss_is_refuted_soon_in_every_replica(
    url: str, log: DecisionLog, method: str, labelled: bool
) -> None:
    """Promise: what was good for long does not have to be outweighed; every replica learns of an alarm from the log."""
    traffic, promised = Traffic(log, share=0.5), certificate(0.05, method)
    acted: dict[str, list[bool]] = {"first": [], "second": []}
    writer = writer_of(url)

    async def look(name: str) -> None:
        await Monitor(writer, "1", promised, Recorder(), acted[name].append).check()

    for _ in range(10):
        traffic.answer(400)
    await look("first")
    assert acted["first"] == [False]
    for number in range(10, 13):
        traffic.answer(200, disagree=0.3)
        if labelled:
            log.add_feedback(f"r{number}", None, [Feedback(item, "large's") for item in range(200)])
    assert not bounds(log.tallies("1"), certificate(0.05)).alarm  # the mean of the whole time is still good
    await look("first")
    await watching(url, promised, acted["second"].append).recall()
    assert acted == {"first": [False, False, True], "second": [True]}


async def test_unlabelled_disagreement_refutes_no_label_certificate(url: str, log: DecisionLog) -> None:
    """Promise: without labels disagreement refutes no certificate that labels gave."""
    Traffic(log, share=1.0).answer(500, disagree=0.5)
    found = await watching(url, certificate(0.05)).check()
    assert found is not None
    assert not found.alarm


async def test_labels_that_come_late_are_still_seen(
    url: str, log: DecisionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    traffic = Traffic(log, share=1.0)
    traffic.answer(200, disagree=1.0)
    wait_s, alarms = 0.001, []  # all of them come too late for the bets on single decisions
    monkeypatch.setattr("pipelines.serve.log.monitor.LABEL_WAIT", timedelta(seconds=wait_s))
    monitor = watching(url, certificate(0.05))
    for _ in range(2):
        await asyncio.sleep(wait_s)
        found = await monitor.check()
        alarms.append(found is not None and found.alarm)
        log.add_feedback("r0", None, [Feedback(item, "large's") for item in range(200)])
    assert alarms == [False, True]


async def test_a_long_log_is_read_in_pieces_and_only_once(
    url: str, log: DecisionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.serve.log.monitor.MAX_EVENTS", 50)
    traffic = Traffic(log, share=1.0)
    traffic.answer(330, disagree=0.2)
    log.add_feedback("r0", None, [Feedback(item, "large's") for item in range(330)])
    for _ in range(2):  # a second process goes on from what the first has written
        await watching(url, certificate(0.5)).check()
    whole = DecisionAlarm(0.5, 0.05, label_free=False)
    assert whole.advance(log.events("1", 0, 1000, label_free=False), datetime.now(UTC))
    assert log.read(VERSIONS)[0]["alarms"] == whole.state_dict()
    assert whole.num_decisions == 330


def test_disagreement_waits_for_label_and_audit_for_its_end(log: DecisionLog) -> None:
    """Promise: what the log says of a decision is final, or the alarm knows that it is not."""
    log.add_decisions([LoggedDecision(Origin("r"), item, "1", "small", 0.5, True, "a") for item in range(4)])
    log.add_decisions(
        [LoggedDecision(Origin("r"), 4, "1", "small", 0.5), LoggedDecision(Origin("r"), 5, "1", "large", 0.5)]
    )
    log.finish_audits("r", {0: "a", 1: "b", 2: None})

    def known(label_free: bool) -> list[tuple[bool, bool]]:
        return [(each.lost, each.final) for each in log.events("1", 0, 10, label_free=label_free)]

    quiet, opened = (False, True), (False, False)
    assert known(label_free=True) == [quiet, (True, True), quiet, opened, quiet, quiet]
    assert known(label_free=False) == [quiet, opened, quiet, opened, quiet, quiet]
    log.add_feedback("r", None, [Feedback(1, "b")])
    assert known(label_free=False)[1] == (True, True)


@pytest.mark.parametrize("state", ["drawn", "lost"])
@pytest.mark.parametrize("method", ["regret", "net"])
def test_an_audit_without_an_outcome_may_have_gone_either_way(state: str, method: str) -> None:
    tallies = [audited(200, state=state), audited(200, agrees=False)]
    found = bounds([*tallies, audited(100, agrees=True)], certificate(0.05, method))
    assert found.disagreement[0] < 0.4 < 0.8 < found.disagreement[1]
    low, high = found.regret
    assert high > 0.8
    assert low == 0 if method == "regret" else -0.9 < low < -0.8
