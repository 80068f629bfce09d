"""The releases in memory: the served release, its replacement, and the models of other deployments."""

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

MAX_KEPT = 3  # versions in memory: champion, challenger, and the previous champion for an immediate rollback

logger = logging.getLogger("ray.serve")

LoadedT = TypeVar("LoadedT")


class ChallengerRelease(Config):
    """A challenger: it answers a share of the champion's callers."""

    version: str = Field(min_length=1, max_length=200, description="The version name for clients.")
    bundle: Path = Field(description="Folder of the bundle.")
    artefact: str | None = Field(default=None, description="Artefact of the storage that holds the bundle, if any.")
    share: float = Field(gt=0, le=1, description="Share of the callers that it answers.")
    stage: int = Field(ge=1, description="Stage of the canary, which the log names.")

    @property
    def release(self) -> Release:
        """The release with this version as champion."""
        return Release(version=self.version, bundle=self.bundle, artefact=self.artefact)

    def answers(self, caller: str | None, request_id: str) -> bool:
        """Whether it answers this caller; a caller that it answers at one share, it answers at any larger share.

        The hash is keyed by the version, so each version gets other callers first. Callers without a key cannot be
        distinguished, so each of their requests, with an id drawn by the service, counts as one caller.
        """
        client = f"caller {caller}" if caller is not None else f"request {request_id}"
        digest = hmac.digest(self.version.encode(), client.encode(), "sha256")
        return int.from_bytes(digest[:8], "big") < self.share * 2**64


class Release(Config):
    """A version of the model: its name for clients and the folder of its bundle, the same on every node."""

    version: str = Field(min_length=1, max_length=200, description="The version name for clients.")
    bundle: Path = Field(description="Folder of the bundle, the same on every node.")
    artefact: str | None = Field(default=None, description="Artefact of the storage that holds the bundle, if any.")
    challenger: ChallengerRelease | None = Field(default=None, description="A challenger on trial.")

    @property
    def champion(self) -> Release:
        """The release without its challenger."""
        return self.model_copy(update={"challenger": None})


class RefusedRelease(Config):
    """A version that failed and is not served."""

    version: str
    reason: str

    @classmethod
    def of(cls, version: str, error: BaseException) -> RefusedRelease:
        """Refused because of an error."""
        return cls(version=version, reason=" ".join(str(error).split())[:500] or type(error).__name__)


@dataclass(frozen=True)
class Served(Generic[LoadedT]):
    """The versions that answer at one moment; `challenger` is None without a working challenger."""

    release: Release
    champion: LoadedT
    challenger: LoadedT | None = None


class Releases(Generic[LoadedT]):
    """The versions in use, and versions that are being loaded.

    `load` loads and tries a release while the champion still answers; an error refuses the release. `fits` raises
    ValueError if a challenger cannot answer the champion's callers. A request reads `served` once, so no request mixes
    two versions. A version in memory is used immediately.
    """

    def __init__(
        self,
        load: Callable[[Release, LoadedT | None], Awaitable[LoadedT]],
        fits: Callable[[LoadedT, LoadedT], None] = lambda champion, challenger: None,
    ) -> None:
        self._load, self._fits = load, fits
        self.served: Served[LoadedT]  # the versions that answer requests; there is none before the first `stage`
        self.has_served = False
        self._kept: OrderedDict[Release, LoadedT] = OrderedDict()
        self._loading: asyncio.Task[None] | None = None
        self._being_loaded: str | None = None
        self.refused: RefusedRelease | None = None
        self.dropped: RefusedRelease | None = None

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
        """Serve `release` as soon as it works; until then the version in use answers.

        Waits for the first champion, and raises its loading errors. A later release that fails becomes `refused`. A
        challenger that fails becomes `dropped`, and its champion is served without it.
        """
        if not self.has_served:
            self.served = Served(release.champion, await self._get(release.champion))
            self.has_served = True
        elif self.release == release and not self._loading:
            return  # unchanged; its challenger may have been dropped
        if self._loading:
            self._loading.cancel()  # the newest release wins
            self._loading = None
        if (
            release.champion != self.release.champion
        ):  # otherwise a version is rolled back, and the reason of its refusal stays
            self.refused = None
        if release.challenger:
            self.dropped = None
        self._being_loaded = release.version
        self._loading = asyncio.create_task(self._replace(release))
        await asyncio.sleep(0)  # a version in memory is in use by now

    async def settled(self) -> None:
        """Wait until nothing is being loaded."""
        while self._loading:
            await asyncio.wait([self._loading])

    def drop(self, version: str, reason: str) -> None:
        """Continue without the challenger of this version."""
        challenger = self.release.challenger
        if self.served.challenger is None or challenger is None or challenger.version != version:
            return
        logger.error("challenger %s is dropped: %s", version, reason)
        self.served = replace(self.served, challenger=None)
        self._kept.pop(challenger.release, None)
        self.dropped = RefusedRelease(version=version, reason=reason)

    def _use(self, served: Served[LoadedT]) -> None:
        if served.release.champion != self.release.champion:
            logger.info("version %s is in use", served.release.version)
        self.served = served

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
        """Load the challenger of a champion."""
        self._being_loaded = challenger.version
        try:
            version = await self._get(challenger.release)
            self._fits(champion, version)
        except Exception as error:
            logger.exception("challenger %s is dropped", challenger.version)
            self._kept.pop(challenger.release, None)
            self.dropped = RefusedRelease.of(challenger.version, error)
        else:
            self._use(Served(release, champion, version))

    async def _get(self, release: Release) -> LoadedT:
        if release not in self._kept:
            self._kept[release] = await self._load(release, self.served.champion if self.has_served else None)
        self._kept.move_to_end(release)
        releases_in_use = {release, self.release.champion} if self.has_served else {release}
        for oldest in [release for release in self._kept if release not in releases_in_use][
            : max(0, len(self._kept) - MAX_KEPT)
        ]:
            del self._kept[oldest]
        return self._kept[release]


class ReleaseCache(Generic[LoadedT]):
    """The models that a deployment behind the door has loaded, by release; every call names its release.

    A release that is not in memory is loaded for the call, so doors may change versions in any order. An error of
    `load` fails the waiting calls; the next call tries again.
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
