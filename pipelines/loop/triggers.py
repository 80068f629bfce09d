"""What starts an attempt of `kcm update --watch`: a schedule, new rows, a refuted certificate, or drift.

A trigger only starts an attempt: the promotion gates decide what is promoted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from pipelines.config import RunConfig
from pipelines.loop.config import UpdateConfig
from pipelines.loop.state import LoopState, log_reader, watermark_of
from pipelines.serve.log.alarm import drifted

Cause = tuple[str | None, str]  # a champion and its fault

POLL_S = 10.0  # pause between two looks at the log


@dataclass(frozen=True)
class NewTraffic:
    """New entries in the log since the last attempt, and the faults that the champion's monitor reports.

    `decisions`, `large_answers` and `labels` count new ones. `refuted`: the certificate of `champion` is refuted;
    `drift`: the quantities that have drifted.
    """

    decisions: int = 0
    large_answers: int = 0
    labels: int = 0
    refuted: bool = False
    drift: str | None = None
    champion: str | None = None

    @classmethod
    def of(cls, config: RunConfig) -> NewTraffic:
        """The new traffic in the log of a run's application."""
        state = LoopState.of(config)
        champion = state.champions.agreed().champion
        if not (watermark := watermark_of(config)):
            return cls()
        ends = [turn["upto"] for turn in state.attempts.turns() if turn["champion_digest"] == champion.digest]
        after = min(watermark, max([champion.after, *ends]))
        with log_reader(config) as log:
            decisions, large_answers, labels = log.counts(after)
            refuted = log.alarm(champion.version) is not None
            drift = drifted(log.drift(champion.version))
        return cls(decisions, large_answers, labels, refuted=refuted, drift=drift, champion=champion.version)

    @property
    def causes(self) -> frozenset[Cause]:
        """Causes that need no new traffic: the champion, and its fault."""
        signs = ((self.refuted, "the certificate is refuted"), (self.drift is not None, f"drift: {self.drift}"))
        return frozenset((self.champion, sign) for holds, sign in signs if holds)


def due(traffic: NewTraffic, idle_s: float, config: UpdateConfig, tried_causes: Collection[Cause] = ()) -> str | None:
    """Why an attempt is due `idle_s` seconds after the last one; None if none is due.

    Without new decisions none is due: there would be nothing to learn. A cause that an attempt already had starts no
    second one, because an attempt that could not help would be repeated forever.
    """
    if traffic.decisions == 0:
        return None
    if new_causes := traffic.causes - set(tried_causes):
        return max(new_causes, key=lambda cause: cause[1])[1]  # a refuted certificate before drift
    if traffic.large_answers >= config.new_large_answers:
        return f"{traffic.large_answers} new answers of the large model"
    if traffic.labels >= config.new_labels:
        return f"{traffic.labels} new labels"
    if idle_s >= config.every_s:
        return f"{idle_s:.0f} s since the last attempt"
    return None


def watch(
    look: Callable[[], NewTraffic],
    attempt: Callable[[str], None],
    config: UpdateConfig,
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    """Check the log every POLL_S seconds and start an attempt whenever one is due, until interrupted.

    `clock` is monotonic; `attempt` receives the reason. A refuted certificate and drift start one attempt each, unless
    they end and start again.
    """
    last, tried_causes = clock(), frozenset[Cause]()
    while True:
        traffic = look()
        tried_causes &= traffic.causes
        if (reason := due(traffic, clock() - last, config, tried_causes)) is not None:
            tried_causes = traffic.causes
            attempt(reason)
            last = clock()
        sleep(POLL_S)
