"""What is removed is what nothing refers to, and nothing is removed beside a run."""

import json
import shutil
from pathlib import Path

import pytest

from kcm.assets.manifest import sha256_of
from kcm.errors import LockedError
from pipelines.store.artefact import Artefact, ArtefactStore, Recipe
from pipelines.store.garbage import collect_garbage, find_garbage
from pipelines.store.lease import leased


def build(store: ArtefactStore, stage: str, number: int, *inputs: Artefact, parent: str | None = None) -> Artefact:
    def write(folder: Path, scratch: Path) -> None:
        (folder / "data.txt").write_text(f"{stage} {number}")
        if stage == "register":
            (folder / "bundle").mkdir()
            (folder / "bundle" / "bundle.json").write_text(json.dumps({"number": number}))
            (folder / "bundle" / "lineage.json").write_text(json.dumps({"artefacts": {}, "parent": parent}))

    return store.build(Recipe(stage, 1, {"number": number}, inputs), write)[0]


def bundle_digest(artefact: Artefact) -> str:
    return sha256_of(artefact.folder / "bundle" / "bundle.json")


@pytest.fixture
def store(place: str) -> ArtefactStore:
    return ArtefactStore(place)


def homes(artefacts: list[Artefact]) -> set[Path]:
    return {artefact.home for artefact in artefacts}


def refer(store: ArtefactStore, run: str, *artefacts: Artefact) -> None:
    named = {each.stage: str(each.path) for each in artefacts}
    store.storage.files.write(f"runs/{run}/result.json", json.dumps({"artefacts": named}).encode())


def test_what_a_run_refers_to_and_what_that_was_made_of_is_kept(store: ArtefactStore) -> None:
    rows = build(store, "tasks", 0)
    features, forgotten = build(store, "features", 0, rows), build(store, "features", 1, rows)
    refer(store, "reviews", features)
    for folder in ("artefacts", "artefacts/features"):
        store.storage.files.write(f"{folder}/.DS_Store", b"of a file browser")
    assert set(find_garbage(store).homes) == homes([forgotten])
    assert set(store.homes()) == homes([rows, features, forgotten]), "looking removes nothing"
    found = collect_garbage(store)
    assert set(found.homes) == homes([forgotten])
    assert found.size > 0
    assert sorted(store.homes()) == sorted(homes([rows, features]))
    assert (features.folder / "data.txt").read_text() == "features 0"


def test_champions_challengers_and_their_parents_are_kept(store: ArtefactStore) -> None:
    """Promise: champions challengers and the bundles they continue are kept."""
    rows = build(store, "tasks", 0)
    parent = build(store, "register", 0, rows)
    champion = build(store, "register", 1, parent=bundle_digest(parent))
    challenger, forgotten = build(store, "register", 2), build(store, "register", 3)
    store.control.create("loop/app/champion", json.dumps({"bundle": champion.fingerprint}).encode())
    store.control.create("loop/app/attempts", json.dumps({"turn": {"digest": bundle_digest(challenger)}}).encode())
    assert set(find_garbage(store).homes) == homes([forgotten])


def test_interrupted_work_is_kept_and_overtaken_is_not(store: ArtefactStore) -> None:
    """Promise: interrupted work is kept and an overtaken attempt is not."""

    def interrupted(folder: Path, scratch: Path) -> None:
        (scratch / "paid.txt").write_text("answer 1")
        store.storage.keep(scratch)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.build(Recipe("outcomes", 1, {}), interrupted)
    refer(store, "reviews", artefact := build(store, "features", 0))
    store.storage.files.write(store.storage.name(artefact.home / "attempt-overtaken" / "data.txt"), b"late")
    found = collect_garbage(store)
    assert (found.homes, found.kept, found.interrupted) == ([], 1, 1)
    assert [path.name for path in found.attempts] == ["attempt-overtaken"]
    assert store.storage.names(artefact.path) == ["data.txt"]
    assert store.storage.names(store.root / "artefacts" / "outcomes")


def test_nothing_is_removed_beside_a_run(store: ArtefactStore) -> None:
    artefact = build(store, "features", 0)
    with leased(store.control, "leases/runs/reviews", "the run"), pytest.raises(LockedError, match="in use by process"):
        collect_garbage(store)
    assert store.homes() == [artefact.home]


def test_node_folder_holds_nothing_missing_from_the_bucket(node_bucket: str) -> None:
    """Promise: the nodes folder for a bucket holds nothing that the bucket lacks."""
    store = ArtefactStore(node_bucket)
    artefact = build(store, "features", 0)
    refer(store, "reviews", artefact)
    shutil.copytree(artefact.home, artefact.home.with_name("removed-elsewhere"))
    collect_garbage(store)
    assert [home.name for home in artefact.home.parent.iterdir()] == [artefact.fingerprint]
