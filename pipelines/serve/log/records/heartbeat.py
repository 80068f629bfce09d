"""Heartbeats of the process that tries out a challenger: without them the trial ends by itself.

The controller of a trial counts up in the log; the service looks whether the count still rises, by a clock of its own,
so that clocks which differ end no trial.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import Connection, select, update

from pipelines.serve.log.database import insert
from pipelines.serve.log.tables import TRIALS

RENEW_S = 10.0  # time between two heartbeats
LEASE_S = 60.0  # time without one after which a trial ends


def beat(connection: Connection, application: str, version: str) -> None:
    """Say that the trial of a version goes on."""
    t = TRIALS.c
    connection.execute(insert(connection, TRIALS), [{"application": application, "model_version": version}])
    mine = (t.application == application) & (t.model_version == version)
    connection.execute(update(TRIALS).where(mine).values(beats=t.beats + 1))


def beats(connection: Connection, application: str, version: str) -> int | None:
    """How often that was said; None where it never was."""
    t = TRIALS.c
    mine = (t.application == application) & (t.model_version == version)
    return connection.scalar(select(t.beats).where(mine))


class Lease:
    """Ends `LEASE_S` after the count was last seen to rise, or after it was made."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._beats: int | None = None
        self._renewed = clock()

    def ended(self, beats: int | None) -> bool:
        """Whether the trial has ended, by the count as it is now; None where it cannot be read."""
        if beats is not None and beats != self._beats:
            self._beats, self._renewed = beats, self._clock()
        return self._clock() - self._renewed > LEASE_S
