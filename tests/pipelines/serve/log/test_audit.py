"""Promise: a random share of what is kept is checked after it was answered, and no answer waits for that."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kcm.bundle.answers import Answer, Failure, Input, Route
from kcm.inputs.content import Content
from kcm.large import Item, LargeAnswer
from pipelines.serve.config import AuditConfig, FeedbackConfig
from pipelines.serve.log import audit as room
from pipelines.serve.log.audit import Auditor
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.entries import LoggedDecision, Origin
from pipelines.serve.log.monitor import Monitor
from pipelines.serve.log.tables import DECISIONS
from pipelines.serve.log.writer import LogWriter
from tests.pipelines.serve.stubs import Recorder

NAMES = ("bad", "good")
DOWN = Failure("the large model failed")


class Large:
    """Says `good`, or fails; waits for `go` where it has one, and looks at the log when asked."""

    def __init__(self, outcome: LargeAnswer | Failure | None = None, url: str | None = None) -> None:
        self._outcome, self._url = outcome or LargeAnswer(1), url
        self.asked: list[str] = []
        self.states: list[str] = []
        self.go: asyncio.Event | None = None

    async def ask(self, items: Sequence[Item]) -> list[LargeAnswer] | Failure:
        self.asked += [item.content.text for item in items]
        if self._url:
            self.states += [row["state"] for row in DecisionLog(self._url, 30.0).read(DECISIONS)]
        if self.go:
            await self.go.wait()
        return self._outcome if isinstance(self._outcome, Failure) else [self._outcome] * len(items)


class Audits:
    """An auditor with a log of its own, as the HTTP replica uses it."""

    def __init__(self, url: str, large: Large, recorder: Any, **config: Any) -> None:
        self.log = LogWriter(FeedbackConfig(timeout_s=30.0), url)
        settings = AuditConfig(**{"share": 1.0, "seed": 0} | config)
        self.share = settings.share
        self.auditor = Auditor(settings, NAMES, large.ask, self.log, Monitor(self.log, "1", None, recorder), recorder)

    def answered(self, request_id: str, inputs: Sequence[Input], answers: Sequence[Answer]) -> None:
        drawn, share = self.auditor.draw(answers, self.share), self.share
        self.log.add_decisions(
            [
                LoggedDecision(Origin(request_id), index, "1", each.route, share, index in drawn, each.label)
                for index, each in enumerate(answers)
            ]
        )
        self.auditor.begin(request_id, inputs, drawn)


def outcomes(recorder: Recorder) -> list[str]:
    return [outcome for (outcome,) in recorder.calls["audited"]]


def answer(label: str, route: Route = "small") -> Answer:
    return Answer(label, {}, 0.9, 2.2, 1.0, route, route == "small_degraded", 0.01)


async def test_kept_items_alone_are_put_to_the_large_model(url: str) -> None:
    large, recorder = Large(), Recorder()
    audits = Audits(url, large, recorder)
    inputs = [Input(Content(text)) for text in ("kept", "escalated", "degraded", "kept too")]
    routes: list[tuple[str, Route]] = [
        ("bad", "small"),
        ("good", "large"),
        ("bad", "small_degraded"),
        ("good", "small"),
    ]
    audits.answered("r", inputs, [answer(label, route) for label, route in routes])
    assert large.asked == []  # not before the answer has gone out
    await audits.auditor.settled()
    assert large.asked == ["kept", "kept too"]
    assert outcomes(recorder) == ["disagree", "agree"]


def test_the_share_is_drawn_at_random_and_the_seed_decides(url: str) -> None:
    def drawn(seed: int) -> list[int]:
        auditor = Audits(url, Large(), Recorder(), seed=seed).auditor
        return list(auditor.draw([answer("good")] * 500, 0.2))

    assert 70 < len(drawn(0)) < 130
    assert drawn(0) == drawn(0) != drawn(1)


async def test_a_draw_is_in_the_log_before_the_large_model_is_asked(url: str) -> None:
    """Promise: an audit that never ends, because the replica dies, is not forgotten."""
    large = Large(url=url)
    audits = Audits(url, large, Recorder(), share=0.999)
    audits.answered("r", [Input(Content("a private text"))], [answer("bad")])
    await audits.auditor.settled()
    assert large.states == ["drawn"]
    (row,) = DecisionLog(url, 30.0).read(DECISIONS)
    assert (row["request_id"], row["item"], row["model_version"], row["probability"]) == ("r", 0, "1", 0.999)
    assert (row["small_label"], row["large_label"], row["state"]) == ("bad", "good", "answered")
    assert "a private text" not in str(row)


async def test_failed_or_excess_audits_are_lost_in_the_log(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: audits that fail or are too many are lost and the log says so."""
    monkeypatch.setattr(room, "MAX_ONGOING", 2)
    recorder, waiting = Recorder(), Large()
    failing = Audits(url, Large(DOWN), recorder)
    failing.answered("failing", [Input(Content("x"))], [answer("good")])
    await failing.auditor.settled()
    silent = Audits(url, Large(LargeAnswer(None, error="no answer")), recorder)
    silent.answered("silent", [Input(Content("x"))], [answer("good")])
    await silent.auditor.settled()
    waiting.go = asyncio.Event()
    busy = Audits(url, waiting, recorder)
    for number in range(5):
        busy.answered(f"r{number}", [Input(Content("x"))], [answer("good")])
    while not waiting.asked:
        await asyncio.sleep(0)
    waiting.go.set()
    await busy.auditor.settled()
    assert outcomes(recorder)[:2] == ["lost", "lost"]
    assert sorted(outcomes(recorder)[2:]) == ["agree"] * 2 + ["lost"] * 3
    assert len(waiting.asked) == 2
    states = {row["request_id"]: row["state"] for row in DecisionLog(url, 30.0).read(DECISIONS)}
    assert states.pop("failing") == states.pop("silent") == "lost"
    assert states == {"r0": "answered", "r1": "answered", "r2": "lost", "r3": "lost", "r4": "lost"}


async def test_what_cannot_be_drawn_in_the_log_is_not_asked_about(tmp_path: Path) -> None:
    recorder, large = Recorder(), Large()
    audits = Audits(f"sqlite:///{tmp_path}/nowhere/feedback.db", large, recorder)
    audits.answered("r", [Input(Content("x"))], [answer("good")])
    await audits.auditor.settled()
    assert outcomes(recorder) == ["lost"]
    assert large.asked == []


async def test_an_outcome_that_the_log_does_not_take_stays_unknown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: what is counted is what the log says."""
    recorder, large = Recorder(), Large()
    audits = Audits(url, large, recorder)
    large.go = asyncio.Event()
    audits.answered("r", [Input(Content("x"))], [answer("bad")])
    while not large.asked:
        await asyncio.sleep(0.01)
    monkeypatch.setattr("pipelines.serve.log.writer.MAX_WAITING", 0)
    large.go.set()
    await audits.auditor.settled()
    assert outcomes(recorder) == ["lost"]
    assert [row["state"] for row in DecisionLog(url, 30.0).read(DECISIONS)] == ["drawn"]
