"""The releases in memory: which one a replica serves, how another replaces it, and what other deployments keep."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import Field

from kcm.config import Config

MAX_KEPT = 3  # versions in memory: champion, challenger, and the one before, to which a rollback is immediate

logger = logging.getLogger("ray.serve")

LoadedT = TypeVar("LoadedT")


class ChallengerRelease(Config):
    """A version beside the one that is served: it answers some of the callers."""

    version: str = Field(min_length=1, max_length=200, description="What clients are told that it answers.")
    bundle: Path = Field(description="Folder of the bundle.")
    artefact: str | None = Field(default=None, description="Artefact of the storage that holds the bundle, if any.")
    share: float = Field(gt=0, le=1, description="Share of the callers that it answers.")
    stage: int = Field(ge=1, description="Stage of the canary, which the log names.")

    @property
    def release(self) -> Release:
        """The release that makes it the champion."""
        return Release(version=self.version, bundle=self.bundle, artefact=self.artefact)

    def answers(self, caller: str | None, request_id: str) -> bool:
        """Whether it is this caller's version; whoever has it at one share has it at any larger one.

        The hash is keyed by the version: other callers come first each time. Callers without a key cannot be
        distinguished, so each of their requests, whose id the service has drawn, counts as a caller of its own.
        """
        who = f"caller {caller}" if caller is not None else f"request {request_id}"
        drawn = hmac.digest(self.version.encode(), who.encode(), "sha256")
        return int.from_bytes(drawn[:8], "big") < self.share * 2**64


class Release(Config):
    """A version of the model: what clients are told it is, and the folder of its bundle, the same on every node."""

    version: str = Field(min_length=1, max_length=200, description="What clients are told.")
    bundle: Path = Field(description="Folder of the bundle, the same on every node.")
    artefact: str | None = Field(default=None, description="Artefact of the storage that holds the bundle, if any.")
    challenger: ChallengerRelease | None = Field(default=None, description="A version that is tried out beside it.")

    @property
    def champion(self) -> Release:
        """The release without its challenger."""
        return self.model_copy(update={"challenger": None})


class RefusedRelease(Config):
    """A version that was offered and is not served."""

    version: str
    reason: str

    @classmethod
    def of(cls, version: str, error: BaseException) -> RefusedRelease:
        """Refused because of an error."""
        return cls(version=version, reason=" ".join(str(error).split())[:500] or type(error).__name__)


@dataclass(frozen=True)
class Served(Generic[LoadedT]):
    """What answers at one moment; `challenger` is None while there is none, or none that works."""

    release: Release
    champion: LoadedT
    challenger: LoadedT | None = None


class Releases(Generic[LoadedT]):
    """The versions in use and, for a time, those that are being loaded.

    `load` loads a release, beside the version that is served by then, and tries it out; what it raises refuses the
    release. `fits` raises ValueError where a challenger cannot answer the champion's callers. A request takes `served`
    once and keeps to it, so that no request mixes two versions. What is in memory already is in use at once.
    """

    def __init__(
        self,
        load: Callable[[Release, LoadedT | None], Awaitable[LoadedT]],
        fits: Callable[[LoadedT, LoadedT], None] = lambda champion, challenger: None,
    ) -> None:
        self._load, self._fits = load, fits
        self._served: Served[LoadedT] | None = None
        self._kept: OrderedDict[Release, LoadedT] = OrderedDict()
        self._loading: asyncio.Task[None] | None = None
        self._being_loaded: str | None = None
        self.refused: RefusedRelease | None = None
        self.dropped: RefusedRelease | None = None

    @property
    def served(self) -> Served[LoadedT]:
        """What answers requests."""
        if self._served is None:
            raise RuntimeError("no release has been loaded yet")
        return self._served

    @property
    def current(self) -> LoadedT:
        """The champion."""
        return self.served.champion

    @property
    def release(self) -> Release:
        """The release that is served."""
        return self.served.release

    @property
    def loading(self) -> str | None:
        """The version that is being loaded, if any."""
        return self._being_loaded if self._loading else None

    async def stage(self, release: Release) -> None:
        """Serve `release` from the moment it has proved to work; the version in use answers until then.

        Waits for the first champion, and raises what its loading raises. A later one that fails becomes `refused`, and
        a challenger that fails `dropped`: its champion is served without it.
        """
        if self._served is None:
            self._served = Served(release.champion, await self._get(release.champion))
        elif self.release == release and not self._loading:
            return  # as it is, with a challenger that may have been dropped since
        if self._loading:
            self._loading.cancel()  # the newest one counts
            self._loading = None
        if release.champion != self.release.champion:  # else a version is rolled back: why it was refused stays known
            self.refused = None
        if release.challenger:
            self.dropped = None
        self._being_loaded = release.version
        self._loading = asyncio.create_task(self._replace(release))
        await asyncio.sleep(0)  # what is in memory is in use by then

    async def settled(self) -> None:
        """Wait until nothing is being loaded."""
        while self._loading:
            await asyncio.wait([self._loading])

    def drop(self, version: str, reason: str) -> None:
        """Go on without the challenger of this version."""
        challenger = self.release.challenger
        if self.served.challenger is None or challenger is None or challenger.version != version:
            return
        logger.error("challenger %s is dropped: %s", version, reason)
        self._served = replace(self.served, challenger=None)
        self._kept.pop(challenger.release, None)
        self.dropped = RefusedRelease(version=version, reason=reason)

    def _use(self, served: Served[LoadedT]) -> None:
        if self._served and served.release.champion != self.release.champion:
            logger.info("version %s is in use", served.release.version)
        self._served = served

    async def _replace(self, release: Release) -> None:
        try:
            try:
                champion = await self._get(release.champion)
            except Exception as error:
                logger.exception("version %s is refused, %s stays", release.version, self.release.version)
                self.refused = RefusedRelease.of(release.version, error)
                return
            self._use(Served(release, champion))
            if release.challenger:
                await self._join(release, champion, release.challenger)
        finally:
            if self._loading is asyncio.current_task():
                self._loading = None

    async def _join(self, release: Release, champion: LoadedT, challenger: ChallengerRelease) -> None:
        """Load a challenger beside its champion."""
        self._being_loaded = challenger.version
        try:
            loaded = await self._get(challenger.release)
            self._fits(champion, loaded)
        except Exception as error:
            logger.exception("challenger %s is dropped", challenger.version)
            self._kept.pop(challenger.release, None)
            self.dropped = RefusedRelease.of(challenger.version, error)
        else:
            self._use(Served(release, champion, loaded))

    async def _get(self, release: Release) -> LoadedT:
        if release not in self._kept:
            self._kept[release] = await self._load(release, self._served.champion if self._served else None)
        self._kept.move_to_end(release)
        used = {release, self.release.champion} if self._served else {release}
        for oldest in [kept for kept in self._kept if kept not in used][: max(0, len(self._kept) - MAX_KEPT)]:
            del self._kept[oldest]
        return self._kept[release]


class ReleaseCache(Generic[LoadedT]):
    """What a deployment behind the door has loaded, by release; every call names its release.

    A release that is not in memory is loaded for the call, so that doors may change in any order. What `load` raises
    fails the calls that wait for it; the next call tries again.
    """

    def __init__(self, load: Callable[[Release], Awaitable[LoadedT]]) -> None:
        self._load = load
        self._tasks: OrderedDict[Release, asyncio.Task[LoadedT]] = OrderedDict()

    async def get(self, release: Release) -> LoadedT:
        """What was loaded of a release."""
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
