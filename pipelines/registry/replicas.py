"""Reports of a service's replicas to the champion pointer: the record each acts on, and the version it refuses.

Each replica writes one small record of its own whenever it changes, and every few seconds as a heartbeat. Clocks of
nodes differ: a reader counts a replica as dead if its record has not changed for `SILENT_S`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from pydantic import Field

from kcm.config import Config
from kcm.errors import KcmError
from pipelines.store.records import Control

BEAT_S = 5.0  # seconds between heartbeats
LOAD_TIMEOUT_S = 300.0  # in which a new version must load and answer; otherwise it is refused
SILENT_S = 20.0  # a replica without a heartbeat for this long counts as dead


class RefusedByServiceError(KcmError):
    """A replica of the running service does not follow the pointer."""


class ReplicaReport(Config):
    """The state of one replica."""

    record: int = Field(ge=0, description="Number of the pointer's record that it has acted on; 0 while it loads.")
    version: str = Field(description="The version that it serves.")
    refused: dict[str, str] = Field(description="Versions that it cannot serve or has dropped, and why.")


class ReplicaReports:
    """The reports of an application's replicas. `clock` returns monotonic seconds."""

    def __init__(
        self,
        control: Control,
        application: str,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._control, self._above, self._clock, self._sleep = control, f"replicas/{application}", clock, sleep

    def write(self, replica: str, report: ReplicaReport) -> None:
        """Replace a replica's report."""
        key = f"{self._above}/{replica}"
        stored_report = self._control.get(key)
        self._control.swap(key, stored_report.version if stored_report else 0, report.model_dump_json().encode())
        self._control.prune(key)

    def remove(self, replica: str) -> None:
        """Remove the report of a stopping replica."""
        self._control.forget(f"{self._above}/{replica}")

    def read(self) -> dict[str, tuple[int, ReplicaReport]]:
        """For each replica, the number of its reports and the last report."""
        stored_reports = {key: self._control.get(key) for key in self._control.keys(self._above)}
        return {
            key: (record.version, ReplicaReport.model_validate_json(record.value))
            for key, record in stored_reports.items()
            if record is not None
        }

    def any_alive(self) -> bool:
        """Whether any replica reports within `SILENT_S`. Returns immediately if none has ever reported."""
        before, started = self.read(), self._clock()
        while before and self._clock() - started < SILENT_S:
            self._sleep(self._control.poll_s)
            now = self.read()
            if any(count != before.get(key, (0, report))[0] for key, (count, report) in now.items()):
                return True
        return False

    def settled(self, record: int, timeout_s: float) -> list[ReplicaReport]:
        """The reports of all living replicas, once each has acted on the pointer's record of this number.

        Removes the reports of dead replicas. Raises RefusedByServiceError if a living one has not acted in time.
        """
        started = self._clock()
        counts_by_replica: dict[
            str, tuple[int, float]
        ] = {}  # number of reports per replica, and when it was first seen
        while True:
            reports, now = self.read(), self._clock()
            pending = {key: count for key, (count, report) in reports.items() if report.record < record}
            for key, count in pending.items():
                if key not in counts_by_replica or counts_by_replica[key][0] != count:
                    counts_by_replica[key] = count, now
            dead = [key for key in pending if now - counts_by_replica[key][1] >= SILENT_S]
            if len(dead) == len(pending):
                for key in dead:
                    self._control.forget(key)
                return [report for _, report in reports.values() if report.record >= record]
            if now - started > timeout_s:
                raise RefusedByServiceError(
                    f"{len(pending) - len(dead)} replicas have not followed after {timeout_s:g} s",
                    where=self._above,
                    hint="See their logs",
                )
            self._sleep(self._control.poll_s)
