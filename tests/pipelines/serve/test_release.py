from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from pipelines.serve.release import Release, Releases


def release(version: str) -> Release:
    return Release(version=version, bundle=Path("/bundles") / version)


class Loader:
    """Loads a version once it is let go; a version called `bad` does not load."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.loaded: list[str] = []

    async def __call__(self, staged: Release) -> str:
        await self.go.wait()
        if staged.version.startswith("bad"):
            raise ValueError(f"{staged.version} does not\nwork")
        self.loaded.append(staged.version)
        return f"model {staged.version}"


async def serving_first() -> tuple[Releases[str], Loader]:
    load = Loader()
    load.go.set()
    releases = Releases(load)
    await releases.stage(release("1"))
    load.go.clear()
    return releases, load


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 10))


def test_the_first_version_must_load() -> None:
    async def start() -> None:
        load = Loader()
        load.go.set()
        with pytest.raises(ValueError, match="does not"):
            await Releases(load).stage(release("bad"))

    run(start())


def test_the_old_version_answers_until_the_new_one_is_loaded() -> None:
    async def swap() -> None:
        releases, load = await serving_first()
        await releases.stage(release("2"))
        assert (releases.current, releases.loading) == ("model 1", "2")
        load.go.set()
        await releases.settled()
        assert (releases.current, releases.release.version, releases.loading) == ("model 2", "2", None)

    run(swap())


def test_a_version_that_does_not_work_is_refused_and_the_old_one_goes_on() -> None:
    async def swap() -> None:
        releases, load = await serving_first()
        load.go.set()
        await releases.stage(release("bad"))
        await releases.settled()
        assert releases.current == "model 1"
        assert releases.refused is not None
        assert (releases.refused.version, releases.refused.reason) == ("bad", "bad does not work")
        await releases.stage(release("1"))
        assert releases.refused is not None
        await releases.stage(release("2"))
        await releases.settled()
        assert (releases.current, releases.refused) == ("model 2", None)

    run(swap())


def test_the_newest_release_counts() -> None:
    async def swap() -> None:
        releases, load = await serving_first()
        await releases.stage(release("2"))
        await asyncio.sleep(0)
        await releases.stage(release("3"))
        load.go.set()
        await releases.settled()
        assert releases.current == "model 3"
        assert load.loaded == ["1", "3"]

    run(swap())


def test_staging_what_is_served_takes_back_what_is_being_loaded() -> None:
    async def roll_back() -> None:
        releases, load = await serving_first()
        await releases.stage(release("2"))
        await asyncio.sleep(0)
        await releases.stage(release("1"))
        load.go.set()
        await releases.settled()
        assert (releases.current, load.loaded) == ("model 1", ["1"])

    run(roll_back())
