import asyncio
from pathlib import Path

import pytest

from pipelines.serve.release import ChallengerRelease, Release, Releases


def release(version: str, challenger: str | None = None, share: float = 0.5) -> Release:
    return Release(
        version=version,
        bundle=Path("/bundles") / version,
        challenger=challenger
        and ChallengerRelease(
            version=challenger,
            bundle=Path("/bundles") / challenger,
            share=share,
            stage=1,
        ),
    )


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


def fits(champion: str, challenger: str) -> None:
    if "another encoder" in challenger:
        raise ValueError("it has another encoder")


async def serving_first() -> tuple[Releases[str], Loader]:
    load = Loader()
    load.go.set()
    releases = Releases(load, fits)
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


async def test_challenger_is_promoted_and_rolled_back_in_memory() -> None:
    """Promise: a challenger is loaded beside the champion and promoted and rolled back without loading."""
    releases, load = await serving_first()
    load.go.set()
    await releases.stage(release("1", "2"))
    await releases.settled()
    assert (releases.served.champion, releases.served.challenger) == ("model 1", "model 2")
    load.go.clear()  # from here on nothing can be loaded
    await releases.stage(release("1", "2", share=0.25))
    assert releases.served.challenger == "model 2"
    await releases.stage(release("2"))
    assert (releases.current, releases.served.challenger) == ("model 2", None)
    await releases.stage(release("1"))
    assert (releases.current, load.loaded) == ("model 1", ["1", "2"])


@pytest.mark.parametrize(("version", "reason"), [("bad", "bad does not work"), ("another encoder", "another encoder")])
async def test_broken_challenger_is_dropped_and_champion_stays(version: str, reason: str) -> None:
    """Promise: a challenger that does not work is dropped and its champion goes on."""
    releases, load = await serving_first()
    load.go.set()
    await releases.stage(release("1", version))
    await releases.settled()
    assert (releases.current, releases.served.challenger, releases.refused) == ("model 1", None, None)
    assert releases.dropped is not None
    assert reason in releases.dropped.reason
    await releases.stage(release("1"))
    assert releases.dropped is not None  # what became of it stays known until there is another one
    await releases.stage(release("1", "2"))
    assert releases.dropped is None


async def test_dropped_challenger_stays_away_until_offered_again() -> None:
    """Promise: a challenger that is dropped while it serves stays away until it is offered anew."""
    releases, load = await serving_first()
    load.go.set()
    await releases.stage(release("1", "2"))
    await releases.settled()
    releases.drop("another", "it is none")
    assert releases.served.challenger == "model 2"
    releases.drop("2", "no numbers")
    await releases.stage(release("1", "2"))
    await releases.settled()
    assert releases.served.challenger is None
    await releases.stage(release("1", "2", share=0.1))
    await releases.settled()
    assert (releases.served.challenger, load.loaded) == ("model 2", ["1", "2", "2"])


def test_callers_keep_their_version_as_the_share_grows() -> None:
    """Promise: about `share` of the callers get the challenger, always the same ones, others for another version."""

    def answered(version: str, share: float) -> set[int]:
        trial = ChallengerRelease(version=version, bundle=Path("/b"), share=share, stage=1)
        return {caller for caller in range(4000) if trial.answers(f"caller {caller}", "any request")}

    few, more, all_of_them = (answered("2", share) for share in (0.05, 0.25, 1.0))
    assert 140 < len(few) < 260
    assert 880 < len(more) < 1120
    assert few < more < all_of_them
    assert len(all_of_them) == 4000
    assert len(few & answered("3", 0.05)) < 40
    trial = ChallengerRelease(version="2", bundle=Path("/b"), share=0.25, stage=1)
    anonymous = [request for request in range(4000) if trial.answers(None, f"request {request}")]
    assert 880 < len(anonymous) < 1120
