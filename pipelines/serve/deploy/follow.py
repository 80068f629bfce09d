"""Keeps a replica on the release that the champion pointer names, and reports beside the pointer how that went."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from kcm.errors import KcmError
from pipelines.registry.champion import CHAMPION_LEASE, Current
from pipelines.registry.replicas import BEAT_S, ReplicaReport
from pipelines.serve.cascade.service import CascadeService
from pipelines.serve.sources import ChampionSource

POLL_S = 1.0  # time between two looks at the pointer
TRIAL_SILENT_S = 60.0  # time after which a challenger is dropped whose trial nobody controls any more

logger = logging.getLogger("ray.serve")


class ReleaseFollower:
    """Looks at the pointer of `source` again and again, and has `service` serve what it names.

    While the storage is away the replica goes on with what it has in memory. A version that cannot be fetched or loaded
    is reported as refused and tried again at the next look as long as the pointer names it. A challenger is dropped
    when the lease of whoever tries it out is no longer renewed. `clock` gives seconds that never go back.
    """

    def __init__(
        self,
        source: ChampionSource,
        replica: str,
        service: CascadeService,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source, self._replica, self._service, self._clock = source, replica, service, clock
        self._record = 0  # number of the pointer's record that is acted on
        self._unfetched: dict[str, str] = {}
        self._report: ReplicaReport | None = None
        self._reported_at = 0.0
        self._lease: tuple[int, float] = (0, clock())  # version of the lease, and when it was last seen to change
        self._last_error = ""

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                await self.look()
                self._last_error = ""
            except (OSError, KcmError) as error:
                if str(error) != self._last_error:
                    self._last_error = str(error)
                    logger.error("the champion pointer cannot be followed, what is served stays: %s", error)
            await asyncio.sleep(POLL_S)

    async def look(self) -> None:
        """Act on the pointer as it is now, and report."""
        current = await asyncio.to_thread(self._source.pointer.current)
        if current is None:
            return
        if current.record != self._record or self._unfetched:
            await self._act_on(current)
        if current.challenger:
            await self._drop_without_lease(current.challenger.version)
        await self._tell()

    def close(self) -> None:
        """Remove the report: the replica stops."""
        with suppress(OSError, KcmError):
            self._source.pointer.reports.remove(self._replica)

    async def _act_on(self, current: Current) -> None:
        try:
            release = await asyncio.to_thread(self._source.release_of, current)
        except (OSError, KcmError) as error:
            self._unfetched = {named.version: str(error) for named in (current.challenger, current.champion) if named}
        else:
            self._unfetched = {}
            await self._service.stage(release)
        if current.record != self._record:
            self._lease = (0, self._clock())
        self._record = current.record

    async def _drop_without_lease(self, version: str) -> None:
        held = await asyncio.to_thread(self._source.store.control.get, CHAMPION_LEASE.format(self._source.name))
        if held and held.version != self._lease[0]:
            self._lease = held.version, self._clock()
        if self._clock() - self._lease[1] > TRIAL_SILENT_S:
            self._service.drop(version, "the process that tries it out is gone")

    async def _tell(self) -> None:
        """Write the report where it has changed, or is due as a sign of life."""
        state = self._service.state()
        report = ReplicaReport(
            record=0 if state.loading else self._record,
            version=state.version,
            refused=self._unfetched | state.refused,
        )
        if report == self._report and self._clock() - self._reported_at < BEAT_S:
            return
        await asyncio.to_thread(self._source.pointer.reports.write, self._replica, report)
        self._report, self._reported_at = report, self._clock()
