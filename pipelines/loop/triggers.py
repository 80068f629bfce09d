"""What starts an attempt of `kcm update --watch`: a schedule, new rows, a refuted certificate, or drift.

A trigger starts an attempt and nothing more: what is promoted is for the promotion gates to say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipelines.loop.config import UpdateConfig


@dataclass(frozen=True)
class Seen:
    """What the log holds beyond the last attempt, and what the monitor of the champion says.

    `decisions`, `large_answers` and `labels` are new ones. `refuted`: the certificate is; `drift`: what has drifted.
    """

    decisions: int = 0
    large_answers: int = 0
    labels: int = 0
    refuted: bool = False
    drift: str | None = None


def due(seen: Seen, idle_s: float, config: UpdateConfig) -> str | None:
    """Why an attempt is due, `idle_s` seconds after the last one; None where it is not.

    Without new decisions nothing is: there would be nothing to learn from.
    """
    if seen.decisions == 0:
        return None
    if seen.refuted:
        return "the certificate is refuted"
    if seen.drift is not None:
        return f"drift: {seen.drift}"
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

    `clock` never goes back, whatever becomes of the time of day; `attempt` is given the reason.
    """
    last = clock()
    while True:
        if (reason := due(look(), clock() - last, config)) is not None:
            attempt(reason)
            last = clock()
        sleep(config.poll_s)
