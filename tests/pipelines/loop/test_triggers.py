"""An attempt is started by what came in, by an alarm or by the clock, and never without anything to learn from."""

import pytest

from pipelines.loop.config import UpdateConfig
from pipelines.loop.triggers import NewTraffic, due, watch

CONFIG = UpdateConfig(every_s=600, new_large_answers=100, new_labels=10)


@pytest.mark.parametrize(
    ("seen", "idle_s", "reason"),
    [
        (NewTraffic(decisions=50, large_answers=20), 10, None),
        (NewTraffic(decisions=500, large_answers=100), 10, "100 new answers of the large model"),
        (NewTraffic(decisions=50, labels=10), 10, "10 new labels"),
        (NewTraffic(decisions=50), 600, "600 s since the last attempt"),
        (NewTraffic(decisions=1, refuted=True), 0, "the certificate is refuted"),
        (NewTraffic(decisions=1, drift="call rate"), 0, "drift: call rate"),
        (NewTraffic(refuted=True, drift="call rate"), 9999, None),
    ],
)
def test_what_starts_an_attempt(seen: NewTraffic, idle_s: float, reason: str | None) -> None:
    assert due(seen, idle_s, CONFIG) == reason


def test_cause_starts_one_attempt_until_it_ends() -> None:
    """Promise: an alarm that no attempt can answer does not start one after the other."""
    looks = iter(
        [
            NewTraffic(decisions=1, refuted=True, champion="films/1"),
            NewTraffic(decisions=9, refuted=True, champion="films/1"),
            NewTraffic(decisions=9, refuted=True, drift="labels", champion="films/1"),
            NewTraffic(decisions=9, drift="labels", champion="films/1"),
            NewTraffic(decisions=9, refuted=True, drift="labels", champion="films/1"),
            NewTraffic(decisions=9, drift="labels", champion="films/2"),
        ]
    )
    started: list[str] = []

    def look() -> NewTraffic:
        if (seen := next(looks, None)) is None:
            raise KeyboardInterrupt
        return seen

    with pytest.raises(KeyboardInterrupt):
        watch(look, started.append, CONFIG, clock=lambda: 0.0, sleep=lambda _: None)
    refuted, drift = "the certificate is refuted", "drift: labels"
    assert started == [refuted, drift, refuted, drift]


def test_watch_attempts_when_due_and_restarts_its_schedule() -> None:
    """Promise: a watch attempts when something is due and waits for the schedule anew after it."""
    now, started = [0.0], list[tuple[float, str]]()

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] > 1500:
            raise KeyboardInterrupt

    def look() -> NewTraffic:
        return NewTraffic(decisions=1, refuted=now[0] == 300)

    with pytest.raises(KeyboardInterrupt):
        watch(look, lambda why: started.append((now[0], why)), CONFIG, clock=lambda: now[0], sleep=sleep)
    assert [at for at, _ in started] == [300, 900, 1500]
    assert started[0][1] == "the certificate is refuted"
