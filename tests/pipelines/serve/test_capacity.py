"""A pool waits as Erlang's tables and a queue that is played say; what no number of replicas can do is refused."""

import heapq
from math import log

import numpy as np
import pytest

from pipelines.serve.capacity import LATE, Demand, capacity, pool, wait
from pipelines.serve.config import ServeConfig


def test_the_wait_is_that_of_published_tables() -> None:
    """Erlang C of 5 servers and 4 erlangs is .5541; of one server it is the load."""
    assert wait(5, 4.0) == pytest.approx(log(0.5541 / LATE) / 1, abs=1e-3)
    assert wait(1, 0.5) == pytest.approx(log(0.5 / LATE) / 0.5)
    assert wait(50, 4.0) == 0.0


def test_a_queue_that_is_played_waits_as_long() -> None:
    rng, replicas, load, num = np.random.default_rng(0), 6, 4.8, 400_000
    free, waited = [0.0] * replicas, []
    for arrival, work in zip(np.cumsum(rng.exponential(1 / load, num)), rng.exponential(1.0, num), strict=True):
        start = max(arrival, heapq.heappop(free))
        waited.append(start - arrival)
        heapq.heappush(free, start + work)
    assert np.quantile(waited, 1 - LATE) == pytest.approx(wait(replicas, load), rel=0.1)


def test_a_pool_is_the_smallest_that_is_in_time() -> None:
    found = pool(200, 21, 80, "--p99")
    assert found.p99_ms <= 80
    assert found.busy == pytest.approx(4.2 / found.replicas)
    assert 21 * (1 + wait(found.replicas - 1, 4.2)) > 80


def test_a_cascade_takes_fewer_replicas_of_the_large_model_than_that_alone() -> None:
    demand, serve = Demand(rps=200), ServeConfig()
    cascade = capacity(demand, serve, call_rate=0.2, small_ms=5, large_ms=90)
    alone = capacity(demand, serve, call_rate=1.0, small_ms=0, large_ms=90)
    assert cascade.large is not None
    assert alone.large is not None
    assert 3 <= alone.large.replicas / cascade.large.replicas <= 5
    assert cascade.cpus == cascade.doors.replicas * serve.cpus + cascade.large.replicas * serve.large.cpus
    assert cascade.calls_per_hour == 144_000
    assert capacity(demand, serve, call_rate=0.0, small_ms=5, large_ms=90).large is None
    waiting = capacity(demand, serve, call_rate=1.0, small_ms=0, large_ms=90, at_once=64)
    assert waiting.large is not None
    assert waiting.large.replicas == 1
