"""What starts an attempt of `kcm update --watch`: a schedule, new rows, a refuted certificate, or drift.

A trigger starts an attempt and nothing more: what is promoted is for the promotion gates to say.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from pipelines.loop.config import UpdateConfig

Cause = tuple[str | None, str]  # a champion, and what is wrong with it


@dataclass(frozen=True)
class Seen:
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

    @property
    def causes(self) -> frozenset[Cause]:
        """What calls for an attempt whatever has come in: the champion, and what is wrong with it."""
        found = [
            (self.refuted, "the certificate is refuted"),
            (self.drift is not None, f"drift: {self.drift}"),
        ]
        return frozenset((self.champion, what) for holds, what in found if holds)


def due(seen: Seen, idle_s: float, config: UpdateConfig, tried: Collection[Cause] = ()) -> str | None:
    """Why an attempt is due, `idle_s` seconds after the last one; None where it is not.

    Without new decisions nothing is: there would be nothing to learn from. Nor is it for a cause that an attempt was
    made for already: an attempt that could not help would be made again and again.
    """
    if seen.decisions == 0:
        return None
    if fresh := seen.causes - set(tried):
        return max(fresh, key=lambda cause: cause[1])[1]  # a refuted certificate before drift
    if seen.large_answers >= config.new_large_answers:
        return f"{seen.large_answers} new answers of the large model"
    if seen.labels >= config.new_labels:
        return f"{seen.labels} new labels"
    if idle_s >= config.every_s:
        return f"{idle_s:.0f} s since the last attempt"
    return None


def watch(
    look: Callable[[], Seen],
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
        seen = look()
        tried &= seen.causes
        if (reason := due(seen, clock() - last, config, tried)) is not None:
            tried = seen.causes
            attempt(reason)
            last = clock()
        sleep(config.poll_s)
