"""What every version has answered, saved and lost, from the log alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.monitor import bounds
from pipelines.serve.log.writer import LogWriter
from pipelines.serve.schemas import VersionRecord

CACHE_S = 10.0  # time in which the log is not read again
_REST = 50  # as the monitor's


class History:
    """The records of the versions of the door's application, cached; `log` is None where nothing is stored."""

    def __init__(self, log: LogWriter | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._log, self._clock = log, clock
        self._reading = asyncio.Lock()
        self._records: list[VersionRecord] = []
        self._until = -float("inf")

    async def versions(self) -> list[VersionRecord]:
        """What each version has answered, the first one first. Raises LogUnavailableError."""
        if self._log is None:
            return []
        async with self._reading:
            started = self._clock()
            if started >= self._until:
                facts = await self._log.call(DecisionLog.version_facts)
                self._records = [await self._record(self._log, version) for version in facts]
                ended = self._clock()
                self._until = ended + max(CACHE_S, _REST * (ended - started))
            return self._records

    async def _record(self, log: LogWriter, facts: dict[str, Any]) -> VersionRecord:
        tallies = await log.call(DecisionLog.tallies, facts["version"])
        num_audited = sum(tally.number for tally in tallies if tally.state is not None)
        return VersionRecord(
            **facts,
            num_items=sum(tally.number for tally in tallies),
            num_escalated=sum(tally.number for tally in tallies if tally.route != "small"),
            num_audited=num_audited,
            disagreement=bounds(tallies, None).disagreement if num_audited else None,
        )
