"""The releases in memory: the served release, its replacement, and the models of other deployments."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import Field

from kcm.config import Config

MAX_KEPT = 2  # versions in memory: the champion, and the previous champion for an immediate rollback

logger = logging.getLogger("ray.serve")

LoadedT = TypeVar("LoadedT")


class Release(Config):
    """A version of the model: its name for clients and the folder of its bundle, the same on every node."""

    version: str = Field(min_length=1, max_length=200, description="The version name for clients.")
    bundle: Path = Field(description="Folder of the bundle, the same on every node.")
    artefact: str | None = Field(default=None, description="Artefact of the storage that holds the bundle, if any.")


class RefusedRelease(Config):
    """A version that failed and is not served."""

    version: str
    reason: str

    @classmethod
    def of(cls, version: str, error: BaseException) -> RefusedRelease:
        """Refused because of an error."""
        return cls(version=version, reason=" ".join(str(error).split())[:500] or type(error).__name__)


class Releases(Generic[LoadedT]):
    """The versions in use, and versions that are being loaded.

    `load` loads and tries a release while the champion still answers; an error refuses the release. A request reads
    `current` once, so no request mixes two versions. A version in memory is used immediately.
    """

    def __init__(self, load: Callable[[Release, LoadedT | None], Awaitable[LoadedT]]) -> None:
        self._load = load
        self.current: LoadedT  # the champion; there is none before the first `stage`
        self.release: Release  # its release
        self.has_served = False
        self._kept: OrderedDict[Release, LoadedT] = OrderedDict()
        self._loading: asyncio.Task[None] | None = None
        self._being_loaded: str | None = None
        self.refused: RefusedRelease | None = None

    @property
    def loading(self) -> str | None:
        """The version that is being loaded, if any."""
        return self._being_loaded if self._loading else None

    async def stage(self, release: Release) -> None:
        """Serve `release` as soon as it works; until then the version in use answers.

        Waits for the first champion, and raises its loading errors. A later release that fails becomes `refused`.
        """
        if not self.has_served:
            self.current, self.release = await self._get(release), release
            self.has_served = True
            return
        if self.release == release and not self._loading:
            return
        if self._loading:
            self._loading.cancel()  # the newest release wins
            self._loading = None
        if release != self.release:  # otherwise a version is rolled back, and the reason of its refusal stays
            self.refused = None
        self._being_loaded = release.version
        self._loading = asyncio.create_task(self._replace(release))
        await asyncio.sleep(0)  # a version in memory is in use by now

    async def settled(self) -> None:
        """Wait until nothing is being loaded."""
        while self._loading:
            await asyncio.wait([self._loading])

    async def _replace(self, release: Release) -> None:
        try:
            current = await self._get(release)
        except Exception as error:
            logger.exception("version %s is refused, %s stays", release.version, self.release.version)
            self.refused = RefusedRelease.of(release.version, error)
        else:
            if release != self.release:
                logger.info("version %s is in use", release.version)
            self.current, self.release = current, release
        finally:
            if self._loading is asyncio.current_task():
                self._loading = None

    async def _get(self, release: Release) -> LoadedT:
        if release not in self._kept:
            self._kept[release] = await self._load(release, self.current if self.has_served else None)
        self._kept.move_to_end(release)
        releases_in_use = {release, self.release} if self.has_served else {release}
        for oldest in [release for release in self._kept if release not in releases_in_use][
            : max(0, len(self._kept) - MAX_KEPT)
        ]:
            del self._kept[oldest]
        return self._kept[release]


class ReleaseCache(Generic[LoadedT]):
    """The models that a deployment behind the HTTP replica has loaded, by release; every call names its release.

    A release that is not in memory is loaded for the call, so HTTP replicas may change versions in any order. An error
    of `load` fails the waiting calls; the next call tries again.
    """

    def __init__(self, load: Callable[[Release], Awaitable[LoadedT]]) -> None:
        self._load = load
        self._tasks: OrderedDict[Release, asyncio.Task[LoadedT]] = OrderedDict()

    async def get(self, release: Release) -> LoadedT:
        """The model of a release, loaded if needed."""
        # Shielded: a client that leaves must not cancel the loading that others wait for.
        return await asyncio.shield(self._task(release))

    def _task(self, release: Release) -> asyncio.Task[LoadedT]:
        task = self._tasks.get(release)
        if task is None or (task.done() and task.exception()):
            self._tasks[release] = task = asyncio.ensure_future(self._load(release))
        self._tasks.move_to_end(release)
        while len(self._tasks) > MAX_KEPT:
            self._tasks.popitem(last=False)
        return task
