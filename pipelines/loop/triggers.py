"""What starts an attempt of `kcm update --watch`: a schedule, a refuted certificate, or new classes.

A trigger only starts an attempt: the promotion gates decide what is promoted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipelines.config import RunConfig
from pipelines.loop.state import LoopState, faults_of, log_reader, watermark_of

POLL_S = 10.0  # pause between two looks at the log


@dataclass(frozen=True)
class NewTraffic:
    """What the log holds since the last attempt: whether there are new decisions, and the champion's faults."""

    has_decisions: bool = False
    faults: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: RunConfig) -> NewTraffic:
        """The new traffic in the log of a run's application."""
        state = LoopState.of(config)
        champion = state.champions.present().champion
        if not (watermark := watermark_of(config)):
            return cls()
        ends = [turn["upto"] for turn in state.attempts.turns() if turn["champion_digest"] == champion.digest]
        with log_reader(config) as log:
            faults = tuple(f"{champion.version}: {fault}" for fault in faults_of(log, champion.version))
        return cls(watermark > max([champion.after, *ends]), faults)


def watch(
    look: Callable[[], NewTraffic],
    attempt: Callable[[str], None],
    every_s: float,
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    """Check the log every POLL_S seconds and start an attempt whenever one is due, until interrupted.

    An attempt is due `every_s` seconds after the last one, and once for each fault of a champion: an attempt that could
    not help is not repeated immediately. Without new decisions none is due. `clock` is monotonic; `attempt` receives
    the reason.
    """
    last, known_faults = clock(), set[str]()
    while True:
        traffic = look()
        new_faults = [fault for fault in traffic.faults if fault not in known_faults]
        idle_s = clock() - last
        if traffic.has_decisions and (new_faults or idle_s >= every_s):
            known_faults.update(new_faults)
            attempt(new_faults[0] if new_faults else f"{idle_s:.0f} s since the last attempt")
            last = clock()
        sleep(POLL_S)
