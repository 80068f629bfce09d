"""Whoever promotes waits for every living replica and for no dead one, by one clock."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.registry.replicas import SILENT_S, RefusedByServiceError, ReplicaReport, ReplicaReports
from pipelines.store.records import Control


class Service:
    """Reports of replicas; `step` is called whenever the reader sleeps, with the seconds since the start."""

    def __init__(self, folder: Path) -> None:
        self.now = 0.0
        self.step: Callable[[float], None] = lambda now: None
        self.reports = ReplicaReports(Control(folder), "demo", clock=lambda: self.now, sleep=self.sleep)

    def sleep(self, _: float) -> None:
        self.now += 1.0
        self.step(self.now)

    def report(self, replica: str, record: int, **refused: str) -> None:
        self.reports.write(replica, ReplicaReport(record=record, version="demo/1", refused=refused))


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path)


def test_living_replicas_are_awaited_and_dead_ones_removed(service: Service) -> None:
    """Promise: every living replica is waited for and a dead one is removed."""
    for replica in ("quick", "slow", "dead"):
        service.report(replica, 1)

    def step(now: float) -> None:
        service.report("quick", 2)
        service.report("slow", 2 if now > 2 * SILENT_S else 0)

    service.step = step
    assert [report.record for report in service.reports.settled(2, 100.0)] == [2, 2]
    assert service.now > 2 * SILENT_S
    assert sorted(key.rpartition("/")[2] for key in service.reports.read()) == ["quick", "slow"]


def test_a_replica_that_does_not_follow_in_time_is_an_error(service: Service) -> None:
    service.report("slow", 1)
    service.step = lambda now: service.report("slow", 0)
    with pytest.raises(RefusedByServiceError, match="1 replicas have not followed after 30 s"):
        service.reports.settled(2, 30.0)


@pytest.mark.parametrize("alive", [True, False])
def test_a_replica_lives_while_it_reports(service: Service, alive: bool) -> None:
    service.report("http", 1)
    if alive:
        service.step = lambda now: service.report("http", 1)
    assert service.reports.any_alive() == alive
