"""Keeps a replica on the release that the champion pointer names, and reports success or failure in the storage.

Every replica reads the pointer once a second. Ray Serve has two other ways to change a model:

- `user_config` in the deployment's file. The file would then name the version, and whoever applies it again (`serve
  deploy`, KubeRay) would undo a promotion. Promoting would need the right to change the cluster's applications, where
  it now needs a compare-and-swap in the storage. A replica could not say that it refuses a version.
- Multiplexing (`serve.multiplexed`). The caller of a request names the model, which loads while the request waits. Here
  the caller must not choose, and a version answers only after it has loaded and answered a probe.

A read lists the versions of one record: one small request per replica and second.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from kcm.errors import KcmError
from pipelines.registry.champion import Current
from pipelines.registry.replicas import BEAT_S, ReplicaReport
from pipelines.serve.cascade.service import CascadeService
from pipelines.serve.sources import ChampionSource

POLL_S = 1.0  # time between two reads of the pointer
RETRY_S = 60.0  # time between two attempts to load a version

logger = logging.getLogger("ray.serve")


class ReleaseFollower:
    """Polls the pointer of `source`, and makes `service` serve the release that it names.

    While the storage is unavailable the replica continues with the versions in memory. A version that cannot be fetched
    or loaded is reported as refused, and retried as long as the pointer names it: at every poll, or every `RETRY_S`.
    `clock` returns monotonic seconds.
    """

    def __init__(
        self,
        source: ChampionSource,
        replica: str,
        service: CascadeService,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source, self._replica, self._service, self._clock = source, replica, service, clock
        self._record = 0  # number of the pointer's record that was acted on
        self._acted_at = clock()
        self._unfetched: dict[str, str] = {}
        self._report: ReplicaReport | None = None
        self._reported_at = 0.0
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
                    logger.error("cannot follow the champion pointer, the served version stays: %s", error)
            await asyncio.sleep(POLL_S)

    async def look(self) -> None:
        """Act on the pointer as it is now, and report."""
        current = await asyncio.to_thread(self._source.pointer.current)
        if current is None:
            return
        if current.record != self._record or self._unfetched or self._may_load_again(current):
            await self._act_on(current)
        await self._tell()

    def close(self) -> None:
        """Remove the report: the replica stops."""
        with suppress(OSError, KcmError):
            self._source.pointer.reports.remove(self._replica)

    def _may_load_again(self, current: Current) -> bool:
        state = self._service.state()
        is_refused = current.champion.version in state.refused and not state.loading
        return is_refused and self._clock() - self._acted_at >= RETRY_S

    async def _act_on(self, current: Current) -> None:
        self._acted_at = self._clock()
        try:
            release = await asyncio.to_thread(self._source.release_of, current)
        except (OSError, KcmError) as error:
            self._unfetched = {current.champion.version: str(error)}
        else:
            self._unfetched = {}
            await self._service.stage(release)
        self._record = current.record

    async def _tell(self) -> None:
        """Write the report if it has changed, or if a heartbeat is due."""
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
