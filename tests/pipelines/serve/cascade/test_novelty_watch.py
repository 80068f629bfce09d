"""Promise: new classes in the traffic are noticed, and inputs far from all known classes escalate."""

import asyncio

import numpy as np
import pytest

from kcm.bundle.answers import Judgement
from kcm.certification.monitoring.novelty import NoveltyReference
from pipelines.serve.cascade.novelty import MOST, NoveltyWatch
from pipelines.serve.config import FeedbackConfig
from pipelines.serve.log.window import LogReader
from pipelines.serve.log.writer import LogWriter
from tests.pipelines.serve.stubs import NoMetrics

REFERENCE = NoveltyReference.fit(np.random.default_rng(0).exponential(size=2000), 2.5)


def judgements(seed: int, scale: float) -> list[Judgement]:
    """Items at a mean distance of `scale` from all known classes; certify rows are at 1."""
    distances = np.random.default_rng(seed).exponential(scale, MOST)
    row = np.zeros(4, np.float32)
    return [Judgement(0, np.ones(3) / 3, 0.5, 1.0, 0.5, True, 0.0, row, float(distance)) for distance in distances]


def watched(watch: NoveltyWatch, looks: int, scale: float) -> None:
    async def look() -> None:
        for number in range(looks):
            watch.add(judgements(100 + number, scale))
            await watch.look()

    asyncio.run(look())


@pytest.mark.parametrize(("scale", "looks", "told"), [(1.0, 20, set()), (2.0, 6, {2.5})])
def test_many_far_inputs_set_the_escalation_distance(scale: float, looks: int, told: set[float]) -> None:
    """Promise: if more inputs lie far from all classes, the distance at which they escalate is given; else nothing."""
    found: set[float] = set()
    watch = NoveltyWatch(REFERENCE, "1", None, NoMetrics(), found.add)  # type: ignore[arg-type]
    watched(watch, looks, scale)
    assert found == told
    assert watch.alarm == bool(told)


def test_replicas_count_alike_and_without_any_nothing_is_new(url: str) -> None:
    """Promise: the log holds each replica's evidence by application and version; its mean decides."""

    def evidence(scale: float) -> float:
        writer = LogWriter(FeedbackConfig(timeout_s=30.0), url, application="films")
        watch = NoveltyWatch(REFERENCE, "1", writer, NoMetrics())  # type: ignore[arg-type]
        watched(watch, 2, scale)
        return watch.e_value

    values = [evidence(1.0), evidence(2.0)]
    with LogReader(url, "films") as reader, LogReader(url, "songs") as of_songs:
        assert reader.novelty("1") == pytest.approx(np.mean(values))
        assert of_songs.novelty("1") == reader.novelty("2") == 1.0
