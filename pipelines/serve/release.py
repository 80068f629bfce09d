"""The releases in memory: which one a door serves, how another replaces it, and what other deployments keep."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import Field

from kcm.config import Config, parse_config

MAX_CACHED = 2  # releases in memory: while doors change from one to the next, both are asked

logger = logging.getLogger("ray.serve")

LoadedT = TypeVar("LoadedT")


class Release(Config):
    """A version of the model: what clients are told it is, and the folder of its bundle, the same on every node."""

    version: str = Field(min_length=1, max_length=200, description="What clients are told.")
    bundle: Path = Field(description="Folder of the bundle, seen by all nodes.")


class RefusedRelease(Config):
    """A version that was offered and is not served."""

    version: str
    reason: str


class Releases(Generic[LoadedT]):
    """The version in use and, for a time, one that is loaded beside it.

    `load` loads a release and tries it out; what it raises refuses the release. A request takes `current` once and
    keeps to it, so that no request mixes two versions.
    """

    def __init__(self, load: Callable[[Release], Awaitable[LoadedT]]) -> None:
        self._load = load
        self._loaded: tuple[Release, LoadedT] | None = None
        self._loading: asyncio.Task[None] | None = None
        self._staged: Release | None = None
        self.refused: RefusedRelease | None = None

    @property
    def current(self) -> LoadedT:
        """What answers requests."""
        return self._in_use[1]

    @property
    def release(self) -> Release:
        """The release of `current`."""
        return self._in_use[0]

    @property
    def loading(self) -> str | None:
        """The version that is being loaded, if any."""
        return self._staged.version if self._staged and self._loading else None

    async def stage(self, release: Release) -> None:
        """Serve `release` from the moment it has proved to work; the version in use answers until then.

        Waits for the first release, and raises what its loading raises. A later one that fails becomes `refused`.
        """
        if self._loaded is None:
            self._loaded = (release, await self._load(release))
            return
        if self._loading:
            self._loading.cancel()  # the newest one counts
        self._staged, self._loading = release, None
        if release != self.release:  # else a version is rolled back: why it was refused stays known
            self.refused = None
            self._loading = asyncio.create_task(self._replace(release))

    async def settled(self) -> None:
        """Wait until nothing is being loaded."""
        while self._loading:
            await asyncio.wait([self._loading])

    async def _replace(self, release: Release) -> None:
        try:
            loaded = await self._load(release)
        except Exception as error:
            logger.exception("version %s is refused, %s stays", release.version, self.release.version)
            self.refused = RefusedRelease(version=release.version, reason=" ".join(str(error).split())[:500])
        else:
            self._loaded = (release, loaded)
            logger.info("version %s is in use", release.version)
        finally:
            if self._loading is asyncio.current_task():
                self._loading = None

    @property
    def _in_use(self) -> tuple[Release, LoadedT]:
        if self._loaded is None:
            raise RuntimeError("no release has been loaded yet")
        return self._loaded


class ReleaseCache(Generic[LoadedT]):
    """What a deployment behind the door has loaded, by release; every call names its release.

    A release that is not in memory is loaded for the call, so that doors may change in any order. What `load` raises
    fails the calls that wait for it; the next call tries again.
    """

    def __init__(self, load: Callable[[Release], Awaitable[LoadedT]]) -> None:
        self._load = load
        self._tasks: OrderedDict[Release, asyncio.Task[LoadedT]] = OrderedDict()

    async def prepare(self, user_config: dict[str, Any]) -> None:
        """Load the release that a configuration names: wait for the first one, load others in the background."""
        first = not self._tasks
        loading = self._task(parse_config(Release, user_config, where="user_config"))
        if first:
            await loading

    async def get(self, release: Release) -> LoadedT:
        """What was loaded of a release."""
        # Shielded: a client that leaves must not cancel the loading that others wait for.
        return await asyncio.shield(self._task(release))

    def _task(self, release: Release) -> asyncio.Task[LoadedT]:
        task = self._tasks.get(release)
        if task is None or (task.done() and task.exception()):
            self._tasks[release] = task = asyncio.ensure_future(self._load(release))
        self._tasks.move_to_end(release)
        while len(self._tasks) > MAX_CACHED:
            self._tasks.popitem(last=False)
        return task
