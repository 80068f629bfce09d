"""An attempt is started by an alarm or by the clock, and never without anything to learn from."""

import pytest

from pipelines.loop.triggers import NewTraffic, watch

REFUTED, NEW = "films/1: its certificate is refuted", "films/1: new classes"


def started(looks: list[NewTraffic], every_s: float = 600, pause_s: float = 0) -> list[tuple[float, str]]:
    """When and why a watch starts attempts that sees these looks, one after the other."""
    now, queue, starts = [0.0], iter(looks), list[tuple[float, str]]()

    def look() -> NewTraffic:
        if (seen := next(queue, None)) is None:
            raise KeyboardInterrupt
        return seen

    def sleep(_: float) -> None:
        now[0] += pause_s

    with pytest.raises(KeyboardInterrupt):
        watch(look, lambda why: starts.append((now[0], why)), every_s, clock=lambda: now[0], sleep=sleep)
    return starts


def test_each_fault_of_a_champion_starts_one_attempt() -> None:
    """Promise: an alarm that no attempt can answer does not start one after the other."""
    faults = [(REFUTED,), (REFUTED,), (REFUTED, NEW), (), (REFUTED,), ("films/2: new classes",)]
    looks = [NewTraffic(False, (REFUTED,)), *(NewTraffic(True, each) for each in faults)]  # first nothing to learn from
    assert [why for _, why in started(looks)] == [REFUTED, NEW, "films/2: new classes"]


def test_watch_attempts_when_due_and_restarts_its_schedule() -> None:
    """Promise: a watch attempts when something is due and waits for the schedule anew after it."""
    looks = [NewTraffic(True, (REFUTED,) if number == 30 else ()) for number in range(151)]
    starts = started(looks, pause_s=10)
    assert [at for at, _ in starts] == [300, 900, 1500]
    assert starts[0][1] == REFUTED
    assert started([NewTraffic()] * 151, pause_s=10) == []
