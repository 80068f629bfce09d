"""Promise: a random share of what is kept is checked after it was answered, and no answer waits for that."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

from kcm.bundle.runtime import Answer, Input, Route
from kcm.inputs.content import Content
from kcm.large import Item, LargeAnswer
from pipelines.serve.cascade.escalation import Trouble
from pipelines.serve.deploy.config import AuditConfig
from pipelines.serve.log.audit import Auditor, Outcome
from pipelines.serve.log.feedback import Feedback, FeedbackConfig, FeedbackLog
from pipelines.serve.log.store import Store
from pipelines.serve.log.tables import AUDITS
from pipelines.serve.log.watch import Bounds, Watch

NAMES = ("bad", "good")
DOWN = Trouble("the large model failed", 503)


class Recorder:
    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.bounds: list[Bounds] = []

    def audited(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def watched(self, version: str, bounds: Bounds) -> None:
        self.bounds.append(bounds)


class Large:
    """Says `good`, or is in trouble; waits for `go` where it is told to hold."""

    def __init__(self, outcome: LargeAnswer | Trouble | None = None) -> None:
        self._outcome = outcome or LargeAnswer(1)
        self.asked: list[str] = []
        self.go: asyncio.Event | None = None

    async def ask(self, items: Sequence[Item]) -> list[LargeAnswer] | Trouble:
        self.asked += [item.content.text for item in items]
        if self.go:
            await self.go.wait()
        return self._outcome if isinstance(self._outcome, Trouble) else [self._outcome] * len(items)


def auditor(large: Large, recorder: Recorder, store: Store | None = None, **config: Any) -> Auditor:
    settings = AuditConfig(**{"share": 1.0, "seed": 0} | config)
    return Auditor(settings, "1", NAMES, large.ask, Watch(None, settings.share), store, recorder)


def answer(label: str, route: Route = "small") -> Answer:
    return Answer(label, {}, 0.9, 2.2, 1.0, route, route == "small_degraded", 0.01)


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 20))


def test_kept_items_alone_are_put_to_the_large_model() -> None:
    large, recorder = Large(), Recorder()

    async def audit() -> None:
        audits = auditor(large, recorder)
        inputs = [Input(Content(text)) for text in ("kept", "escalated", "degraded", "kept too")]
        routes: list[tuple[str, Route]] = [
            ("bad", "small"),
            ("good", "large"),
            ("bad", "small_degraded"),
            ("good", "small"),
        ]
        audits.answered("r", inputs, [answer(label, route) for label, route in routes])
        assert large.asked == []  # not before the answer has gone out
        await audits.settled()

    run(audit())
    assert large.asked == ["kept", "kept too"]
    assert recorder.outcomes == ["disagree", "agree"]


def test_the_share_is_drawn_at_random_and_the_seed_decides() -> None:
    def drawn(seed: int) -> list[str]:
        large = Large()

        async def audit() -> None:
            audits = auditor(large, Recorder(), share=0.2, seed=seed, max_ongoing=1000)
            for number in range(500):
                audits.answered(f"r{number}", [Input(Content(str(number)))], [answer("good")])
            await audits.settled()

        run(audit())
        return large.asked

    assert 70 < len(drawn(0)) < 130
    assert drawn(0) == drawn(0) != drawn(1)


def test_audits_that_fail_or_are_too_many_are_lost_and_said_to_be() -> None:
    recorder, waiting = Recorder(), Large()

    async def audit() -> None:
        failing = auditor(Large(DOWN), recorder)
        failing.answered("r", [Input(Content("x"))], [answer("good")])
        await failing.settled()
        waiting.go = asyncio.Event()
        busy = auditor(waiting, recorder, max_ongoing=2)
        for number in range(5):
            busy.answered(f"r{number}", [Input(Content("x"))], [answer("good")])
        while not waiting.asked:
            await asyncio.sleep(0)
        waiting.go.set()
        await busy.settled()

    run(audit())
    assert recorder.outcomes[0] == "lost"
    assert sorted(recorder.outcomes[1:]) == ["agree"] * 2 + ["lost"] * 3
    assert len(waiting.asked) == 2


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/feedback.db"


def test_an_audit_is_in_the_log_with_its_probability(url: str) -> None:
    async def audit() -> None:
        store = Store(FeedbackConfig(), url)
        audits = auditor(Large(), Recorder(), store, share=0.999)
        audits.answered("r", [Input(Content("a private text"))], [answer("bad")])
        await audits.settled()

    run(audit())
    (row,) = FeedbackLog(url, 1.0).read(AUDITS)
    assert (row["request_id"], row["item"], row["model_version"], row["probability"]) == ("r", 0, "1", 0.999)
    assert (row["small_label"], row["large_label"]) == ("bad", "good")
    assert "a private text" not in str(row)


@pytest.mark.parametrize("label_first", [False, True])
def test_a_true_label_counts_once_whether_it_comes_before_or_after_the_audit_ends(url: str, label_first: bool) -> None:
    recorder, large = Recorder(), Large()

    async def audit() -> None:
        store = Store(FeedbackConfig(), url)
        audits = auditor(large, recorder, store)
        large.go = asyncio.Event()
        audits.answered("r", [Input(Content("x"))], [answer("bad")])
        while not large.asked:
            await asyncio.sleep(0.01)
        if not label_first:
            large.go.set()
            await audits.settled()
        for _ in range(2):  # the second one is known already
            audits.labelled(await store.add_feedback("r", [Feedback(0, "good")]))
        if label_first:
            assert recorder.bounds[-1].regret == (0.0, 1.0)
            large.go.set()
            await audits.settled()

    run(audit())
    once = Watch(None, 1.0)
    once.compared(1.0, agree=False)
    assert recorder.bounds[-1].regret == once.bounds.disagreement  # the same one loss


def test_labels_of_another_version_s_audits_say_nothing_of_this_one(url: str) -> None:
    recorder = Recorder()

    async def audit() -> None:
        store = Store(FeedbackConfig(), url)
        audits = auditor(Large(), recorder, store)
        audits.answered("r", [Input(Content("x"))], [answer("bad")])
        await audits.settled()
        other = Auditor(AuditConfig(share=1.0), "2", NAMES, Large().ask, Watch(None, 1.0), store, recorder)
        other.labelled(await store.add_feedback("r", [Feedback(0, "good")]))

    run(audit())
    assert recorder.bounds[-1].regret == (0.0, 1.0)


def test_without_the_log_audits_go_on(tmp_path: Path) -> None:
    recorder = Recorder()

    async def audit() -> None:
        audits = auditor(Large(), recorder, Store(FeedbackConfig(), f"sqlite:///{tmp_path}/nowhere/feedback.db"))
        audits.answered("r", [Input(Content("x"))], [answer("good")])
        await audits.settled()

    run(audit())
    assert recorder.outcomes == ["lost"]
