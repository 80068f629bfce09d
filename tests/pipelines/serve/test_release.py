import asyncio
from pathlib import Path

import pytest

from pipelines.serve.release import Release, Releases


def release(version: str) -> Release:
    return Release(version=version, bundle=Path("/bundles") / version)


class Loader:
    """Loads a version once it is let go; a version called `bad` does not load."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.loaded: list[str] = []

    async def __call__(self, staged: Release, beside: str | None) -> str:
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


async def test_the_old_version_answers_until_the_new_one_is_loaded() -> None:
    releases, load = await serving_first()
    await releases.stage(release("2"))
    assert (releases.current, releases.loading) == ("model 1", "2")
    load.go.set()
    await releases.settled()
    assert (releases.current, releases.release.version, releases.loading) == ("model 2", "2", None)


async def test_broken_version_is_refused_and_the_old_one_stays() -> None:
    """Promise: a version that does not work is refused and the old one goes on."""
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


@pytest.mark.parametrize(("newest", "loaded"), [("3", ["1", "3"]), ("1", ["1"])], ids=["another", "what is served"])
async def test_the_newest_release_counts(newest: str, loaded: list[str]) -> None:
    """Promise: what is being loaded when another release is staged is not served."""
    releases, load = await serving_first()
    await releases.stage(release("2"))
    await asyncio.sleep(0)
    await releases.stage(release(newest))
    load.go.set()
    await releases.settled()
    assert (releases.current, load.loaded) == (f"model {newest}", loaded)


async def test_previous_champion_is_back_without_loading() -> None:
    """Promise: a rollback to the previous champion loads nothing."""
    releases, load = await serving_first()
    load.go.set()
    await releases.stage(release("2"))
    await releases.settled()
    assert releases.current == "model 2"
    load.go.clear()  # from here on nothing can be loaded
    await releases.stage(release("1"))
    assert (releases.current, load.loaded) == ("model 1", ["1", "2"])
