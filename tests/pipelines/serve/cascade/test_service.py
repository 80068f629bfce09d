import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kcm.bundle.answers import Input, Judgement
from kcm.bundle.bundle import Lineage
from kcm.cascade.policy import KEEP_ALL, Policy
from kcm.cascade.thresholds import FAR
from kcm.encoders.text import TextEncoderConfig
from kcm.inputs.content import Content
from kcm.large import LargeAnswer
from kcm.large.adapters.classifier import ClassifierConfig
from kcm.large.base import Cost
from pipelines.serve.breaker import Breaker, BreakerConfig
from pipelines.serve.cascade import service as module
from pipelines.serve.cascade.service import CascadeService
from pipelines.serve.cascade.version import CascadeVersion
from pipelines.serve.config import AuditConfig, FeedbackConfig, ServeConfig
from pipelines.serve.errors import BusyError, InvalidInputError, LogAwayError
from pipelines.serve.http.refusals import status_of
from pipelines.serve.log import writer
from pipelines.serve.log.audit import Auditor
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.entries import Feedback, LabelConflictError, Origin, TooManyLabelsError
from pipelines.serve.log.monitor import Monitor
from pipelines.serve.log.tables import DECISIONS, FEEDBACK, PAYLOADS
from pipelines.serve.log.window import LogReader
from pipelines.serve.log.writer import LogWriter
from pipelines.serve.release import Release
from tests.pipelines.serve.stubs import DOWN, Recorder, StubEscalation, StubSide, version_of

KEPT, ASKED = Input(Content("keep")), Input(Content("a private text"), "movies")


OF_A_CARD: dict[str, Any] = {
    "encoder": SimpleNamespace(name="some/encoder"),
    "metrics": dict[str, Any](),
    "large": ClassifierConfig(encoder=TextEncoderConfig(model="other/encoder")),
    "policy": Policy(),
    "lineage": Lineage(parent="older"),
}


CONFIG = ServeConfig(feedback=FeedbackConfig(timeout_s=30.0))


def release(version: str) -> Release:
    return Release(version=version, bundle=Path("/bundles") / version)


async def started(
    metrics: Any,
    url: str | None = None,
    troubles: int = 0,
    share: float = 0.0,
    feedback: FeedbackConfig = CONFIG.feedback,
) -> CascadeService:
    log = LogWriter(feedback, url, application="films") if url else None
    config = CONFIG.model_copy(update={"audit": AuditConfig(share=share, seed=0), "feedback": feedback})

    async def load(staged: Release, beside: CascadeVersion | None) -> CascadeVersion:
        fails = 99 if staged.version == "mute" else troubles
        large: Any = StubEscalation(LargeAnswer(1, cost=Cost(seconds=0.05)), fails)
        auditor = None
        if log and share:
            monitor = Monitor(log, staged.version, None, metrics)
            auditor = Auditor(config.audit, ("bad", "good"), lambda items: large.ask(items, 1.0), log, monitor, metrics)
        return version_of(StubSide(**OF_A_CARD), large, CONFIG, name=staged.version, auditor=auditor)

    service = CascadeService(load, config, Breaker(BreakerConfig()), metrics, log, status_of)
    await service.stage(release("1"))
    return service


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


async def test_predictions_continue_without_the_log(url: str, tmp_path: Path, recorder: Recorder) -> None:
    """Promise: without the log predictions go on and are counted while feedback is to be retried."""
    service = await started(recorder, url, feedback=FeedbackConfig(timeout_s=0.05))
    await service.predict([ASKED], Origin("r1"))
    with closing(sqlite3.connect(tmp_path / "log.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        response = await service.predict([ASKED], Origin("r2"))
        with pytest.raises(LogAwayError, match="the labels may not be stored"):
            await service.feedback("r1", None, [Feedback(0, "good")])
        assert service.degraded() == "log"
    assert response.answers[0].label == "good"
    assert recorder.calls["unstored"] == [("feedback",)]
    assert (len(recorder.calls["answered"]), recorder.calls["refused"]) == (2, [])


async def test_feedback_is_durable_and_must_agree(url: str, recorder: Recorder) -> None:
    """Promise: feedback is stored when it is acknowledged and must agree with the model and what is there."""
    service = await started(recorder, url)
    await service.predict([KEPT], Origin("r1"))
    assert (await service.feedback("r1", None, [Feedback(0, "good")])).stored == 1
    assert [row["label"] for row in DecisionLog(url, 30.0).read(FEEDBACK)] == ["good"]
    for label, reason, error in (
        ("bad", "another label", LabelConflictError),
        ("goood", r"labels\[0\].label", InvalidInputError),
    ):
        with pytest.raises(error, match=reason):
            await service.feedback("r1", None, [Feedback(0, label)])


async def test_a_far_input_is_logged_as_one_that_no_threshold_keeps(
    url: str, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: an update does not count as kept what the distance rule escalated."""
    judge = StubSide.judge_features

    def judge_far(*given: Any) -> list[Judgement]:
        return [replace(judged, far=not judged.keeps) for judged in judge(*given)]

    monkeypatch.setattr(StubSide, "judge_features", judge_far)
    service = await started(recorder, url)
    await service.predict([KEPT, ASKED], Origin("r1"))
    await service.settled()
    log = DecisionLog(url, 30.0)
    while len(log.read(DECISIONS)) < 2:
        await asyncio.sleep(0.01)
    scores = [row["gate_score"] for row in log.read(DECISIONS)]
    assert scores == [1.4, FAR]
    assert Policy(decision=KEEP_ALL).keep(scores).tolist() == [True, False]


async def test_a_decision_has_all_that_an_update_needs_of_it(url: str, recorder: Recorder) -> None:
    """Promise: kept or escalated, a row says what the small side thought and how likely the large model was asked."""
    service = await started(recorder, url, share=0.25, feedback=FeedbackConfig(store_payloads="all", timeout_s=30.0))
    of_ann = Input(Content("keep"), "movies", group="ann")
    await service.predict([KEPT, ASKED, of_ann, KEPT], Origin("r1", client_request_id="mine"))
    await service.settled()
    await service.predict([Input(Content("ask"), group="ann")], Origin("r2"))
    log = DecisionLog(url, 30.0)
    while len(log.read(DECISIONS)) < 5:
        await asyncio.sleep(0.01)
    rows = log.read(DECISIONS)
    assert [(row["request_id"], row["item"]) for row in rows] == [*(("r1", item) for item in range(4)), ("r2", 0)]
    assert [row["client_request_id"] for row in rows] == ["mine"] * 4 + [None]
    assert [row["route"] for row in rows] == ["small", "large", "small", "small", "large"]
    assert [row["probability"] for row in rows] == [0.25, 1.0, 0.25, 0.25, 1.0]
    assert {row["audit_share"] for row in rows} == {0.25}
    known = {(row["application"], row["small_label"], row["gate_score"], row["large_identity"]) for row in rows}
    assert known == {("films", "bad", 1.4, "large/7")}
    assert [row["task"] for row in rows] == [KEPT.task, ASKED.task, "movies", KEPT.task, None]
    units = [row["unit"] for row in rows]
    assert units[0] == units[3]  # of one text
    assert units[2] == units[4]  # of one group
    assert len({*units}) == 3
    assert [row["sequence"] for row in rows] == [1, 2, 3, 4, 5]
    payloads = log.read(PAYLOADS)
    assert [row["text"] for row in payloads] == [KEPT.content.text, ASKED.content.text, "keep", "keep", "ask"]
    assert {row["features"] for row in payloads} == {np.zeros(4, "<f4").tobytes()}


async def test_the_card_counts_items_by_route_since_the_start(recorder: Recorder) -> None:
    service = await started(recorder, troubles=1)
    assert (service.cards.card().call_rate, service.cards.card().traffic.small) == (None, 0)
    await service.predict([KEPT, KEPT, ASKED], Origin("r1"))
    await service.predict([ASKED], Origin("r2"))
    card = service.cards.card()
    counts = card.traffic.model_dump(include={"small", "large", "small_degraded"})
    assert counts == {"small": 2, "large": 1, "small_degraded": 1}
    assert card.call_rate == 0.5
    assert (card.lineage, card.model_version) == ({"artefacts": {}, "parent": "older"}, "1")


async def test_the_cost_saved_is_measured_against_calls_that_were_made(recorder: Recorder) -> None:
    service = await started(recorder)
    await service.predict([KEPT, KEPT, KEPT], Origin("r1"))
    assert service.cards.card().cost_saved is None  # what a call costs is not known yet
    await service.predict([ASKED], Origin("r2"))
    # Four items judged for 0.01 s each and one call of 0.05 s, in place of four calls.
    assert service.cards.card().cost_saved == pytest.approx(1 - (4 * 0.01 + 0.05) / (4 * 0.05))


async def test_decisions_are_explained_one_at_a_time(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    async def explain(version: CascadeVersion, given: Input, top: int, request_id: str) -> str:
        await asyncio.sleep(0.05)
        return f"{given.content.text} by {version.name}"

    monkeypatch.setattr(CascadeVersion, "explain", explain)
    service = await started(recorder)
    first = asyncio.ensure_future(service.explain(KEPT, 3, "r1"))
    await asyncio.sleep(0)
    with pytest.raises(BusyError, match="another decision"):
        await service.explain(ASKED, 3, "r2")
    assert await first == "keep by 1"
    assert await service.explain(ASKED, 3, "r3") == "a private text by 1"
    assert recorder.calls["refused"] == []


async def test_it_is_ready_once_the_large_model_has_answered_a_probe(
    monkeypatch: pytest.MonkeyPatch, recorder: Recorder
) -> None:
    monkeypatch.setattr(module, "PROBE_INTERVAL_S", 0.0)
    service = await started(recorder, troubles=2)
    assert service.waiting_for() == "the large model has not answered yet"
    await service.become_ready()
    assert service.waiting_for() is None


async def test_version_with_silent_large_model_is_refused(recorder: Recorder) -> None:
    """Promise: a version whose large model does not answer is refused and the card says so."""
    service = await started(recorder)
    await service.stage(release("mute"))
    await service.settled()
    card = service.cards.card()
    assert card.model_version == "1"
    assert card.refused is not None
    assert (card.refused.version, card.refused.reason) == ("mute", DOWN.reason)


async def test_new_label_is_kept_if_configured_and_not_counted(
    url: str, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: callers may name what the model does not know, a few a day; no bound and no alarm moves for it."""
    monkeypatch.setattr(writer, "MAX_NEW_LABELS", 2)
    service = await started(recorder, url, share=1.0, feedback=FeedbackConfig(new_labels="keep", timeout_s=30.0))
    for number in range(4):
        await service.predict([KEPT], Origin(f"r{number}", "ann"))
        await service.predict([KEPT], Origin(f"s{number}", "bob"))
    await service.settled()
    for number, label in enumerate(("refund", "rebate", "refund")):
        await service.feedback(f"r{number}", "ann", [Feedback(0, label)])
    with pytest.raises(TooManyLabelsError, match="2 new labels within 24 hours"):
        await service.feedback("r3", "ann", [Feedback(0, "recall")])
    await service.feedback("s0", "bob", [Feedback(0, "recall")])
    await service.feedback("r3", "ann", [Feedback(0, "good")])
    log = DecisionLog(url, 30.0, "films")
    assert [row["new"] for row in log.read(FEEDBACK)] == [True, True, True, None, True]
    assert sum(tally.number for tally in log.tallies("1") if tally.small_right is not None) == 1
    with LogReader(url, "films") as reader:
        assert reader.stats()["new_labels"] == {"refund": 2, "rebate": 1, "recall": 1}
