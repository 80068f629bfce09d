"""What starts an attempt of `kcm update --watch`: a schedule, new rows, a refuted certificate, or drift.

A trigger starts an attempt and nothing more: what is promoted is for the promotion gates to say.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from pipelines.config import RunConfig
from pipelines.loop.config import UpdateConfig
from pipelines.loop.state import LoopState, log_reader, watermark_of
from pipelines.serve.log.alarm import drifted

Cause = tuple[str | None, str]  # a champion, and what is wrong with it


@dataclass(frozen=True)
class NewTraffic:
    """What the log holds beyond the last attempt, and what the monitor of the champion says.

    `decisions`, `large_answers` and `labels` are new ones. `refuted`: the certificate of `champion` is; `drift`: what
    has drifted.
    """

    decisions: int = 0
    large_answers: int = 0
    labels: int = 0
    refuted: bool = False
    drift: str | None = None
    champion: str | None = None

    @classmethod
    def of(cls, config: RunConfig) -> NewTraffic:
        """What the log of a run's application holds."""
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
        """What calls for an attempt whatever has come in: the champion, and what is wrong with it."""
        signs = ((self.refuted, "the certificate is refuted"), (self.drift is not None, f"drift: {self.drift}"))
        return frozenset((self.champion, what) for holds, what in signs if holds)


def due(traffic: NewTraffic, idle_s: float, config: UpdateConfig, tried: Collection[Cause] = ()) -> str | None:
    """Why an attempt is due, `idle_s` seconds after the last one; None where it is not.

    Without new decisions nothing is: there would be nothing to learn from. Nor is it for a cause that an attempt was
    made for already: an attempt that could not help would be made again and again.
    """
    if traffic.decisions == 0:
        return None
    if fresh := traffic.causes - set(tried):
        return max(fresh, key=lambda cause: cause[1])[1]  # a refuted certificate before drift
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
    """Look at the log every `poll_s` seconds and make an attempt whenever one is due, until interrupted.

    `clock` never goes back, whatever becomes of the time of day; `attempt` is given the reason. A refuted certificate
    and drift start one attempt each, unless they end and begin anew.
    """
    last, tried = clock(), frozenset[Cause]()
    while True:
        traffic = look()
        tried &= traffic.causes
        if (reason := due(traffic, clock() - last, config, tried)) is not None:
            tried = traffic.causes
            attempt(reason)
            last = clock()
        sleep(config.poll_s)
