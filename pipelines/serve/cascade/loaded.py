"""What a deployment behind the door has in memory: one thing for each release that it is asked for."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from kcm.config import parse_config
from pipelines.serve.deploy.release import Release

KEPT = 2  # releases in memory: while doors go from one to the next, both are asked

LoadedT = TypeVar("LoadedT")


class Loaded(Generic[LoadedT]):
    """Every call names its release. One that is not in memory is loaded for it, so that doors may change in any order.

    `load` makes a release ready to be asked; what it raises fails the calls that wait for it, and the next one tries
    again.
    """

    def __init__(self, load: Callable[[Release], Awaitable[LoadedT]]) -> None:
        self._load = load
        self._tasks: OrderedDict[Release, asyncio.Task[LoadedT]] = OrderedDict()

    async def prepare(self, user_config: dict[str, Any]) -> None:
        """Load the release that a configuration names: the first before anything is asked, others behind it."""
        first = not self._tasks
        loading = self._once(parse_config(Release, user_config, where="user_config"))
        if first:
            await loading

    async def of(self, release: Release) -> LoadedT:
        """What was loaded of a release."""
        # Shielded: one client that leaves must not end the loading that others wait for.
        return await asyncio.shield(self._once(release))

    def _once(self, release: Release) -> asyncio.Task[LoadedT]:
        known = self._tasks.get(release)
        if known is None or (known.done() and known.exception()):
            self._tasks[release] = known = asyncio.ensure_future(self._load(release))
        self._tasks.move_to_end(release)
        while len(self._tasks) > KEPT:
            self._tasks.popitem(last=False)
        return known
