"""Promise: a challenger answers its share of the callers and harms nobody; a request is answered by one version."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kcm.bundle.answers import Input, Judgement
from kcm.cascade.policy import Policy
from kcm.errors import DataError
from kcm.inputs.content import Content
from kcm.large import LargeAnswer
from pipelines.serve.breaker import Breaker, BreakerConfig
from pipelines.serve.cascade.models.escalation import LargeUnavailable
from pipelines.serve.cascade.service import CascadeService
from pipelines.serve.cascade.version import CascadeVersion
from pipelines.serve.config import AuditConfig, FeedbackConfig, ServeConfig
from pipelines.serve.errors import LargeFailedError
from pipelines.serve.http.refusals import status_of
from pipelines.serve.log.audit import Auditor
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.entries import Feedback, Origin
from pipelines.serve.log.monitor import Monitor
from pipelines.serve.log.tables import DECISIONS, FAILURES
from pipelines.serve.log.writer import LogWriter
from pipelines.serve.release import ChallengerRelease, Release
from pipelines.serve.schemas import PredictResponse
from tests.pipelines.serve.stubs import NoMetrics, StubEncoder, StubEscalation, StubSide, version_of

INPUTS = [Input(Content("keep")), Input(Content("escalate"))]
CALLERS = [f"caller {number}" for number in range(40)]
CONFIG = ServeConfig()


class Side(StubSide):
    """Its label is that of its version. May give no numbers."""

    broken = False

    def __init__(self, version: str) -> None:
        tasks = () if version == "without tasks" else ("movies",)
        super().__init__(label=int(version != "1"), names=("label of 1", "label of 2"), task_names=tasks)

    def judge_features(self, features_ND: Any, inputs: Sequence[Input], encoded_s: float) -> list[Judgement]:
        if self.broken:
            raise DataError("judge logits contain NaN")
        return super().judge_features(features_ND, inputs, encoded_s)


class Replica:
    """A service, its log, and what it has in memory."""

    def __init__(self, url: str, audit_share: float = 0.0) -> None:
        self.encoder, self.sides = StubEncoder(), {}
        self.log, self.url = LogWriter(FeedbackConfig(timeout_s=30.0), url), url
        config = CONFIG.model_copy(update={"audit": AuditConfig(share=audit_share)})
        metrics, large = NoMetrics(), StubEscalation(LargeAnswer(0))
        self.large = large

        async def load(release: Release, beside: CascadeVersion | None) -> CascadeVersion:
            side = self.sides[release.version] = Side(release.version)
            monitor = Monitor(self.log, release.version, None, metrics)  # type: ignore[arg-type]
            auditor = Auditor(
                config.audit,
                side.bundle.answer_names,
                lambda items: large.ask(items, 1.0),
                self.log,
                monitor,
                metrics,  # type: ignore[arg-type]
            )
            judging = beside.judging if beside else None
            return version_of(
                side, large, config, name=release.version, encoder=self.encoder, auditor=auditor, judging=judging
            )

        breaker = Breaker(BreakerConfig())
        self.service = CascadeService(load, config, breaker, metrics, self.log, status_of)  # type: ignore[arg-type]

    async def serve(self, challenger: str | None = None, share: float = 0.5) -> None:
        trial = challenger and ChallengerRelease(version=challenger, bundle=Path("/2"), share=share, stage=1)
        await self.service.stage(Release(version="1", bundle=Path("/1"), challenger=trial or None))
        await self.service.settled()

    async def answer_all(self) -> list[PredictResponse]:
        return [
            await self.service.predict(INPUTS, Origin(f"r{number}", caller)) for number, caller in enumerate(CALLERS)
        ]

    async def decisions(self) -> list[dict[str, Any]]:
        await self.service.settled()
        await self.log.flush()
        return DecisionLog(self.url, 30.0).read(DECISIONS)


async def test_each_version_answers_its_callers_and_encodes_once(url: str) -> None:
    """Promise: each version answers its own callers and every item is encoded once."""
    replica = Replica(url)
    await replica.serve("2")
    before = replica.encoder.num_encoded
    responses = await replica.answer_all()
    assert {response.model_version for response in responses} == {"1", "2"}
    assert all(response.answers[0].label == f"label of {response.model_version}" for response in responses)
    assert replica.encoder.num_encoded - before == len(INPUTS) * len(CALLERS)


async def test_callers_may_give_labels_that_the_challenger_knows(url: str) -> None:
    """Promise: a label that is in the list of a served version is not refused."""
    replica = Replica(url)
    await replica.serve("2", share=1.0)
    replica.sides["2"].bundle.label_names = ("label of 2", "refund")
    await replica.service.predict(INPUTS, Origin("r"))
    assert (await replica.service.feedback("r", None, [Feedback(0, "refund"), Feedback(1, "label of 1")])).stored == 2


async def test_small_canary_is_fully_audited_in_the_log(url: str) -> None:
    """Promise: all that a small canary keeps is audited; the log has this, the stage of its requests, and all times."""
    replica = Replica(url, audit_share=0.1)
    await replica.serve("2", share=0.2)
    await replica.answer_all()
    first = await replica.decisions()
    known = {(row["model_version"], row["audit_share"], row["stage"]) for row in first}
    assert known == {("1", 0.1, None), ("2", 1.0, 1)}
    assert all(row["seconds"] > 0 for row in first)
    await replica.serve("2", share=0.25)
    await replica.service.predict(INPUTS, Origin("later", None))
    later = [row["audit_share"] for row in await replica.decisions() if row["request_id"] == "later"]
    assert later == [0.1, 0.1]


async def test_unanswered_canary_request_is_in_the_log(url: str) -> None:
    """Promise: a request that a canary took and did not answer is in the log."""
    replica = Replica(url)
    await replica.serve("2", share=1.0)
    replica.sides["2"].policy = Policy(on_large_failure="error")
    replica.large.outcome = LargeUnavailable("the large model is away")
    with pytest.raises(LargeFailedError):
        await replica.service.predict(INPUTS, Origin("r"))
    log = DecisionLog(url, 30.0)
    while not (rows := log.read(FAILURES)):
        await asyncio.sleep(0.01)
    (row,) = rows
    assert (row["request_id"], row["model_version"], row["status"]) == ("r", "2", 503)


async def test_challenger_without_numbers_is_dropped(url: str) -> None:
    """Promise: a challenger that gives no numbers is dropped while the champion answers."""
    replica = Replica(url)
    await replica.serve("2", share=1.0)
    replica.sides["2"].broken = True
    responses = await replica.answer_all()
    assert {response.model_version for response in responses} == {"1"}
    card = replica.service.cards.challenger_card()
    assert card is not None
    assert "contain NaN" in (card.dropped or "")


async def test_a_challenger_that_lacks_a_task_is_refused(url: str) -> None:
    replica = Replica(url)
    await replica.serve("without tasks")
    card = replica.service.cards.challenger_card()
    assert card is not None
    assert "it lacks tasks of version 1: movies" in (card.dropped or "")
    assert {response.model_version for response in await replica.answer_all()} == {"1"}
