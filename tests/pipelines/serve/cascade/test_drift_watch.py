"""Promise: traffic unlike the certify rows is noticed and reported; more is audited, and what is novel escalates."""

import asyncio
from typing import Any

import numpy as np
import pytest

from kcm.bundle.answers import Judgement
from kcm.certification.monitoring.drift import DriftReference
from pipelines.serve.cascade.drift import MOST, Drift
from pipelines.serve.config import FeedbackConfig
from pipelines.serve.log.alarm import COMBINED, drifted
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.entries import LoggedDecision, Origin
from pipelines.serve.log.monitor import Monitor
from pipelines.serve.log.window import LogReader
from pipelines.serve.log.writer import LogWriter
from tests.pipelines.serve.stubs import NoMetrics

DIM = 6


def judgements(
    number: int, seed: int, *, shift: float = 0.0, escalates: float = 0.2, rare: float = 0.03, novel: float = 0.0
) -> list[Judgement]:
    rng = np.random.default_rng(seed)
    features_ND = (rng.normal(size=(number, DIM)) + shift).astype(np.float32)
    labels = rng.choice(3, number, p=[0.6, 0.4 - rare, rare])
    keeps, novelties = rng.random(number) >= escalates, rng.exponential(1 + novel, number)
    return [
        Judgement(int(label), np.ones(3) / 3, 0.5, 1.0, 0.5, bool(kept), 0.0, row, float(novelty))
        for label, kept, row, novelty in zip(labels, keeps, features_ND, novelties, strict=True)
    ]


@pytest.fixture(scope="module")
def reference() -> DriftReference:
    rows = judgements(2000, seed=0)
    return DriftReference.fit(
        np.stack([each.features_D for each in rows]),
        np.array([each.label for each in rows]),
        3,
        np.array([each.keeps for each in rows]),
        np.random.default_rng(1).random(len(rows)) < 0.02,
        delta=0.05,
        novelty_N=np.array([each.novelty for each in rows]),
        farthest=2.5,
    )


def watched(drift: Drift, looks: int, **kind: Any) -> None:
    async def look() -> None:
        for number in range(looks):
            drift.add(judgements(MOST, seed=100 + number, **kind))
            await drift.look()

    asyncio.run(look())


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ({}, None),
        ({"shift": 0.8}, "distance"),
        ({"escalates": 0.5}, "call_rate"),
        ({"rare": 0.2}, "labels"),
        ({"novel": 1.0}, "novelty"),
    ],
)
def test_each_quantity_tells_of_its_own_drift(reference: DriftReference, kind: Any, name: str | None) -> None:
    drift = Drift(reference, "1", None, NoMetrics())  # type: ignore[arg-type]
    watched(drift, 6 if kind else 20, **kind)
    assert drifted(drift.e_values) == name


@pytest.mark.parametrize(("kind", "told"), [({}, set()), ({"escalates": 0.9}, set()), ({"novel": 1.0}, {2.5})])
def test_many_far_inputs_set_the_escalation_distance(
    reference: DriftReference, kind: dict[str, float], told: set[float]
) -> None:
    """Promise: where more inputs lie far from all classes it is told from where on they escalate."""
    found: set[float] = set()
    drift = Drift(reference, "1", None, NoMetrics(), None, found.add)  # type: ignore[arg-type]
    watched(drift, 10, **kind)
    assert found == told


async def test_disagreement_comes_from_the_log_and_evidence_goes_there(reference: DriftReference, url: str) -> None:
    """Promise: disagreement is read from the log and all evidence is written there."""
    log = DecisionLog(url, 30.0, "films")
    log.add_decisions([LoggedDecision(Origin("r"), item, "1", "small", 0.5, True, "bad") for item in range(400)])
    log.finish_audits("r", dict.fromkeys(range(400), "good"))
    writer = LogWriter(FeedbackConfig(timeout_s=30.0), url, application="films")
    limit = reference.limits()["disagreement"]
    monitor = Monitor(writer, "1", None, NoMetrics(), disagreement=limit)  # type: ignore[arg-type]
    drift = Drift(reference, "1", writer, NoMetrics(), monitor)  # type: ignore[arg-type]
    await monitor.check()
    drift.add(judgements(50, seed=7))
    await drift.look()
    await drift.look()
    with LogReader(url, "films") as reader, LogReader(url, "songs") as of_songs:
        found = reader.drift("1")
        assert of_songs.drift("1") == reader.drift("2") == {}
    assert set(found) == {"call_rate", "distance", "labels", "novelty", "disagreement", COMBINED}
    assert drifted(found) == "disagreement"
    assert found[COMBINED] == pytest.approx(np.mean([value for name, value in found.items() if name != COMBINED]))


async def test_replicas_count_alike_and_without_any_there_is_no_drift(reference: DriftReference, url: str) -> None:
    async def look(kind: dict[str, float]) -> None:
        writer = LogWriter(FeedbackConfig(timeout_s=30.0), url, application="films")
        drift = Drift(reference, "1", writer, NoMetrics())  # type: ignore[arg-type]
        drift.add(judgements(MOST, seed=3, **kind))
        await drift.look()

    assert drifted({}) is None
    await look({})
    with LogReader(url, "films") as reader:
        alone = reader.drift("1")["distance"]
        await look({"shift": 0.8})
        both = reader.drift("1")["distance"]
    assert both > 10 * alone
