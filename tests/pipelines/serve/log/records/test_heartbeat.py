"""A trial lives as long as its heartbeats come, whatever the clocks of different machines say."""

from __future__ import annotations

from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.trial import LEASE_S, TrialLease, TrialLog


def test_a_lease_ends_without_new_signs_of_life_and_lives_with_them() -> None:
    now = [1000.0]
    lease = TrialLease(lambda: now[0])
    for beats in (None, 1, 2, 2):
        now[0] += 0.9 * LEASE_S if beats != 2 else 0.5 * LEASE_S
        assert not lease.ended(beats)
    now[0] += 0.6 * LEASE_S
    assert lease.ended(2)
    assert lease.ended(None)
    assert not lease.ended(3)


def test_signs_of_life_are_counted_by_application_and_version(any_url: str) -> None:
    films, songs = (DecisionLog(any_url, 5.0, name) for name in ("films", "songs"))
    controller = TrialLog(any_url, "films")
    assert films.beats("films/2") is None
    for _ in range(3):
        controller.renew("films/2")
    assert (films.beats("films/2"), films.beats("films/1"), songs.beats("films/2")) == (3, None, None)
