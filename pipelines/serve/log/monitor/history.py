"""What every version has answered, saved and lost, from the log alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipelines.serve.log.monitor.monitor import bounds
from pipelines.serve.log.records.tenures import Tenure
from pipelines.serve.log.writer import LogWriter

KEPT_S = 10.0  # time in which the log is not read again
_REST = 50  # as the monitor's


@dataclass(frozen=True)
class Chapter:
    """What a version has answered and saved.

    `num_escalated` of its `num_items` were the large model's to answer; `disagreement` are the ends of how often kept
    items differ from it, None where nothing was audited.
    """

    tenure: Tenure
    num_items: int
    num_escalated: int
    num_audited: int
    disagreement: tuple[float, float] | None

    @property
    def figures(self) -> dict[str, Any]:
        """All but the tenure."""
        return {name: value for name, value in vars(self).items() if name != "tenure"}


class History:
    """The chapters of the door's application, read again after a while; `log` is None where nothing is stored."""

    def __init__(self, log: LogWriter | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._log, self._clock = log, clock
        self._reading = asyncio.Lock()
        self._known: list[Chapter] = []
        self._until = -float("inf")

    async def chapters(self) -> list[Chapter]:
        """What each version has answered, the first one first. Raises LogUnavailableError."""
        if self._log is None:
            return []
        async with self._reading:
            started = self._clock()
            if started >= self._until:
                self._known = [await self._chapter(self._log, each) for each in await self._log.tenures()]
                ended = self._clock()
                self._until = ended + max(KEPT_S, _REST * (ended - started))
            return self._known

    async def _chapter(self, log: LogWriter, tenure: Tenure) -> Chapter:
        tallies = await log.tallies(tenure.version)
        found = bounds(tallies, None)
        num_audited = sum(each.number for each in tallies if each.state is not None)
        return Chapter(
            tenure,
            num_items=sum(each.number for each in tallies),
            num_escalated=sum(each.number for each in tallies if each.route != "small"),
            num_audited=num_audited,
            disagreement=found.disagreement if num_audited else None,
        )
