"""An artefact is finished or it is not: half-written and damaged ones are built again, and nothing finished is lost."""

import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kcm.errors import ArtefactError
from pipelines.store.artefact import (
    LAYOUT,
    MANIFEST,
    Artefact,
    ArtefactStore,
    Recipe,
    encoded,
    publish,
)

RECIPE = Recipe("features", 1, {"encoder": "tiny"})


def write_data(folder: Path, scratch: Path) -> None:
    (folder / "data.txt").write_text("forty-two")


def must_not_run(folder: Path, scratch: Path) -> None:
    raise AssertionError("a finished artefact was built again")


def test_a_finished_artefact_is_not_built_again(place: str) -> None:
    store = ArtefactStore(place)
    first, cached = store.build(RECIPE, write_data)
    assert not cached
    again, cached = store.build(RECIPE, must_not_run)
    assert cached
    assert again == first
    assert first.manifest["files"].keys() == {"data.txt"}


@pytest.mark.parametrize("damage", ["other content", "missing", "extra", "no manifest", "torn manifest"])
def test_a_damaged_artefact_is_built_again(place: str, damage: str) -> None:
    store = ArtefactStore(place)
    artefact = store.build(RECIPE, write_data)[0]
    files = store.storage.files
    data, manifest = store.storage.name(artefact.path / "data.txt"), store.storage.name(artefact.home / MANIFEST)
    match damage:
        case "other content":
            files.write(data, b"forty-one")
        case "missing":
            files.delete([data])
        case "extra":
            files.write(f"{data}.more", b"?")
        case "no manifest":
            files.delete([manifest])
        case "torn manifest":
            files.write(manifest, b'{"files": {')
    assert store.find(RECIPE) is None
    rebuilt, cached = store.build(RECIPE, write_data)
    assert not cached
    assert (rebuilt.folder / "data.txt").read_text() == "forty-two"
    assert store.storage.names(rebuilt.path) == ["data.txt"]


def test_a_file_with_another_mark_and_the_same_content_is_sound(place: str) -> None:
    """As after a copy of the storage: it is hashed, and found in order."""
    store = ArtefactStore(place)
    artefact = store.build(RECIPE, write_data)[0]
    manifest = artefact.manifest
    manifest["marks"]["data.txt"][1] = "another"
    store.storage.files.write(store.storage.name(artefact.home / MANIFEST), encoded(manifest))
    assert store.build(RECIPE, must_not_run) == (artefact, True)


def another_node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From now on this process is one of a node that has fetched nothing."""
    monkeypatch.setenv("KCM_CACHE", str(tmp_path / "another node"))


def test_another_node_fetches_and_verifies_what_it_reads(
    node_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: another node fetches what it reads and holds it against the manifest."""
    made = ArtefactStore(node_bucket).build(RECIPE, write_data)[0]
    another_node(monkeypatch, tmp_path)
    store = ArtefactStore(node_bucket)
    found = store.find(RECIPE)
    assert found is not None
    assert not found.path.exists()
    assert (found.folder / "data.txt").read_text() == "forty-two"
    shutil.rmtree(store.root)
    store.storage.files.write(f"artefacts/features/{made.fingerprint}/{made.path.name}/data.txt", b"forty-one")
    with pytest.raises(ArtefactError, match="not what its manifest says"):
        _ = found.folder


def test_an_artefact_that_travels_is_fetched_where_it_arrives(node_bucket: str) -> None:
    store = ArtefactStore(node_bucket)
    rows = store.build(Recipe("tasks", 1, {}), write_data)[0]
    features = store.build(Recipe("features", 1, {}, (rows,)), write_data)[0]
    sent = pickle.dumps(features)
    shutil.rmtree(store.root)  # as on a node that has nothing of it
    arrived = pickle.loads(sent)
    assert (arrived.source(Artefact, "tasks").folder / "data.txt").read_text() == "forty-two"
    assert arrived.file("data.txt").read_text() == "forty-two"


def test_what_another_node_kept_for_an_attempt_belongs_to_it(node_bucket: str) -> None:
    store = ArtefactStore(node_bucket)

    def spread(folder: Path, scratch: Path) -> None:
        write_data(folder, scratch)
        elsewhere = folder / "shards" / "one.txt"
        elsewhere.parent.mkdir()
        elsewhere.write_text("a shard")
        store.storage.keep(elsewhere)
        elsewhere.unlink()  # it never was on this node

    artefact = store.build(RECIPE, spread)[0]
    assert artefact.manifest["files"].keys() == {"data.txt", "shards/one.txt"}
    assert artefact.file("shards/one.txt").read_text() == "a shard"


def test_two_processes_may_fetch_one_file_at_once(node_bucket: str) -> None:
    store = ArtefactStore(node_bucket)
    artefact = store.build(RECIPE, write_data)[0]
    (artefact.path / "data.txt").unlink()
    with ThreadPoolExecutor(8) as threads:
        read = [threads.submit(artefact.file, "data.txt") for _ in range(8)]
    assert [file.result().read_text() for file in read] == ["forty-two"] * 8
    assert [path.name for path in artefact.path.iterdir()] == ["data.txt"]


def test_interrupted_build_finds_only_its_scratch(place: str) -> None:
    """Promise: an interrupted build finds its scratch again and nothing else."""
    store = ArtefactStore(place)

    def interrupted(folder: Path, scratch: Path) -> None:
        (scratch / "paid.txt").write_text("answer 1")
        store.storage.keep(scratch / "paid.txt")
        (folder / "half.txt").write_text("?")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.build(RECIPE, interrupted)
    assert store.find(RECIPE) is None

    def resumed(folder: Path, scratch: Path) -> None:
        assert (scratch / "paid.txt").read_text() == "answer 1"
        write_data(folder, scratch)

    artefact, _ = store.build(RECIPE, resumed)
    assert [path.name for path in artefact.folder.iterdir()] == ["data.txt"]
    assert sorted(path.name for path in artefact.home.iterdir()) == [artefact.folder.name, MANIFEST]
    assert sorted(store.storage.names(artefact.home)) == [f"{artefact.folder.name}/data.txt", MANIFEST]


def test_first_of_two_writers_wins_and_other_takes_it(tmp_path) -> None:
    """A lease may be lost, for one that slept: what is published does not rest on it."""
    store = ArtefactStore(tmp_path)

    def overtaken(folder: Path, scratch: Path) -> None:
        other = folder.with_name("attempt-other")
        other.mkdir()
        (other / "data.txt").write_text("forty-two, by another")
        assert publish(store.storage, folder.parent, RECIPE.as_json(), other)
        write_data(folder, scratch)

    artefact, cached = store.build(RECIPE, overtaken)
    assert cached
    assert (artefact.folder / "data.txt").read_text() == "forty-two, by another"
    assert sorted(path.name for path in artefact.home.iterdir()) == ["attempt-other", MANIFEST]
    assert store.find(RECIPE) == artefact


def test_a_torn_manifest_hides_no_other_artefact(tmp_path) -> None:
    store = ArtefactStore(tmp_path)
    good = store.build(RECIPE, write_data)[0]
    torn = store.build(Recipe("features", 9, {}), write_data)[0]
    (torn.home / MANIFEST).write_text("{")
    assert store.finished("features") == [good]


@pytest.mark.parametrize(
    "other",
    [
        Recipe("outcomes", 1, {"encoder": "tiny"}),
        Recipe("features", 2, {"encoder": "tiny"}),
        Recipe("features", 1, {"encoder": "huge"}),
        Recipe("features", 1, {"encoder": "tiny"}, (Artefact("tasks", "abc", Path("x")),)),
    ],
)
def test_fingerprint_covers_stage_version_section_and_inputs(other) -> None:
    """Promise: the fingerprint tells stage version section and inputs apart."""
    assert other.fingerprint != RECIPE.fingerprint


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nowhere"])
def test_a_store_that_cannot_be_written_is_refused_at_once(tmp_path, place) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtefactError, match="Choose another storage_path"):
        ArtefactStore(tmp_path / place)


def test_an_artefact_knows_what_it_was_made_of(tmp_path) -> None:
    store = ArtefactStore(tmp_path)
    rows = store.build(Recipe("tasks", 1, {}), write_data)[0]
    features = store.build(Recipe("features", 1, {}, (rows,)), write_data)[0]
    trained = store.build(Recipe("train", 1, {}, (features,)), write_data)[0]
    assert features.source(Artefact, "grow", "tasks") == trained.source(Artefact, "grow", "tasks") == rows
    with pytest.raises(ArtefactError, match="made of no artefact of stage tune"):
        trained.source(Artefact, "tune")


def test_a_storage_of_another_layout_is_named_and_left_as_it_is(place: str) -> None:
    store = ArtefactStore(place)
    files = store.storage.files
    store.build(RECIPE, write_data)
    files.write(LAYOUT, b"1\n")  # where the looks of a folder were in a file that is not read: they would be forgotten
    for open_store in (ArtefactStore, ArtefactStore.existing):
        with pytest.raises(ArtefactError, match=r"another layout.*Use another storage_path"):
            open_store(place)
    assert any(stat.name.endswith(MANIFEST) for stat in files.list())
