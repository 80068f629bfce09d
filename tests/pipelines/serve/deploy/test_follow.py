"""A replica serves what the pointer names, says what it cannot serve, and goes on while the storage is away."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.registry.champion import Champion, Pointer
from pipelines.serve.cascade.service import ServingState
from pipelines.serve.deploy.follow import RETRY_S, ReleaseFollower
from pipelines.serve.release import Release
from pipelines.serve.sources import ChampionSource
from pipelines.store.artefact import ArtefactStore
from tests.champions import registered


class StubService:
    """Serves at once what it is told to, but for versions that are `broken`."""

    def __init__(self) -> None:
        self.release: Release | None = None
        self.refused: dict[str, str] = {}
        self.broken = ""

    async def stage(self, release: Release) -> None:
        self.refused = {}
        if release.version == self.broken:
            self.refused = {release.version: "it does not load"}
        else:
            self.release = release

    def state(self) -> ServingState:
        return ServingState(self.release.version if self.release else "", False, self.refused)


class World:
    """A storage with two registered versions, the first one the champion, and a replica that follows it."""

    def __init__(self, folder: Path) -> None:
        self.storage, self.now = folder / "storage", 0.0
        self.store = ArtefactStore(self.storage)
        self.first, self.second = (self.version(folder, name) for name in ("1", "2"))
        self.pointer = Pointer(self.store.control, "demo")
        self.pointer.swap(0, self.first)
        self.service = StubService()
        self.source = ChampionSource(str(self.storage), "demo")
        self.follower = ReleaseFollower(self.source, "replica-1", self.service, lambda: self.now)  # type: ignore[arg-type]

    def version(self, folder: Path, name: str) -> Champion:
        bundle = folder / name
        bundle.mkdir()
        (bundle / "bundle.json").write_text(name)
        return registered(self.store, bundle, f"demo/{name}")

    @property
    def report(self) -> Any:
        ((_, report),) = self.pointer.reports.read().values()
        return report


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_a_replica_follows_the_pointer_and_reports_each_record(world: World) -> None:
    await world.follower.look()
    assert (world.service.release.version, world.report.record) == ("demo/1", 1)  # type: ignore[union-attr]
    world.pointer.swap(1, world.second)
    await world.follower.look()
    assert world.service.release == world.source.first()
    assert (world.report.version, world.report.record, world.report.refused) == ("demo/2", 2, {})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bundle": "nowhere"}, "the register artefact nowhere is missing"),
        ({"digest": "another"}, "differs from the registered one"),  # whoever can write where bundles lie
        ({}, "it does not load"),
    ],
    ids=["missing", "changed", "broken"],
)
async def test_unservable_version_is_reported_and_old_one_stays(
    world: World, change: dict[str, str], reason: str
) -> None:
    """Promise: what cannot be served is reported and what is served stays; a version that did not load is retried."""
    await world.follower.look()
    world.service.broken = world.second.version
    world.pointer.swap(1, world.second.model_copy(update=change))
    await world.follower.look()
    assert world.service.release.version == "demo/1"  # type: ignore[union-attr]
    assert reason in world.report.refused["demo/2"]
    assert world.report.record == 2
    world.service.broken, world.now = "", RETRY_S
    await world.follower.look()
    assert world.service.release.version == ("demo/1" if change else "demo/2")  # type: ignore[union-attr]


def test_replica_starts_with_last_champion_without_storage(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: while the storage is away a replica starts with the champion that was served last."""
    expected = world.source.first()

    def away(_: Pointer) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(Pointer, "current", away)
    assert ChampionSource(str(world.storage), "demo").first() == expected
    with pytest.raises(OSError, match="no route"):
        ChampionSource(str(world.storage), "other").first()


async def test_a_replica_that_stops_removes_its_report(world: World) -> None:
    await world.follower.look()
    world.follower.close()
    assert world.pointer.reports.read() == {}
