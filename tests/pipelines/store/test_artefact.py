"""An artefact is finished or it is not: half-written and damaged ones are built again, and nothing finished is lost."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from kcm.errors import ArtefactError
from pipelines.store.artefact import MANIFEST, Artefact, ArtefactStore, Recipe, publish, storage_errors, write_json

RECIPE = Recipe("features", 1, {"encoder": "tiny"})


def write_data(folder: Path, scratch: Path) -> None:
    (folder / "data.txt").write_text("forty-two")


def must_not_run(folder: Path, scratch: Path) -> None:
    raise AssertionError("a finished artefact was built again")


def test_a_finished_artefact_is_not_built_again(tmp_path) -> None:
    store = ArtefactStore(tmp_path)
    first, cached = store.build(RECIPE, write_data)
    assert not cached
    again, cached = store.build(RECIPE, must_not_run)
    assert cached
    assert again == first
    assert first.manifest["files"].keys() == {"data.txt"}


@pytest.mark.parametrize("damage", ["other content", "missing", "extra", "no manifest", "torn manifest"])
def test_a_damaged_artefact_is_built_again(tmp_path, damage) -> None:
    store = ArtefactStore(tmp_path)
    artefact = store.build(RECIPE, write_data)[0]
    folder, home = artefact.folder, artefact.home
    match damage:
        case "other content":
            (folder / "data.txt").write_text("forty-one")
        case "missing":
            (folder / "data.txt").unlink()
        case "extra":
            (folder / "more.txt").write_text("?")
        case "no manifest":
            (home / MANIFEST).unlink()
        case "torn manifest":
            (home / MANIFEST).write_text('{"files": {')
    assert store.find(RECIPE) is None
    rebuilt, cached = store.build(RECIPE, write_data)
    assert not cached
    assert (rebuilt.folder / "data.txt").read_text() == "forty-two"
    assert not (rebuilt.folder / "more.txt").exists()


def test_an_interrupted_build_finds_its_scratch_again_and_nothing_else(tmp_path) -> None:
    store = ArtefactStore(tmp_path)

    def interrupted(folder: Path, scratch: Path) -> None:
        (scratch / "paid.txt").write_text("answer 1")
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


def test_of_two_writers_the_first_to_finish_wins_and_the_other_takes_its_artefact(tmp_path) -> None:
    """A lease may be lost, for one that slept: what is published does not rest on it."""
    store = ArtefactStore(tmp_path)

    def overtaken(folder: Path, scratch: Path) -> None:
        other = folder.with_name("attempt-other")
        other.mkdir()
        (other / "data.txt").write_text("forty-two, by another")
        assert publish(folder.parent, RECIPE.as_json(), other)
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
def test_the_fingerprint_tells_stage_version_section_and_inputs_apart(other) -> None:
    assert other.fingerprint != RECIPE.fingerprint


def test_the_fingerprint_does_not_depend_on_where_an_input_lies() -> None:
    here, there = (Recipe("train", 1, {}, (Artefact("tasks", "abc", Path(place)),)) for place in ("here", "there"))
    assert here.fingerprint == there.fingerprint


def test_a_full_disk_is_explained() -> None:
    with pytest.raises(ArtefactError, match=r"disk is full.*finished work is kept"), storage_errors(Path("/somewhere")):
        raise OSError(errno.ENOSPC, "No space left on device")


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
    assert features.source(Artefact, "alignment", "tasks") == trained.source(Artefact, "alignment", "tasks") == rows
    with pytest.raises(ArtefactError, match="made of no artefact of stage tune"):
        trained.source(Artefact, "tune")


def test_a_manifest_of_a_later_format_is_refused_and_one_without_a_number_is_read(tmp_path) -> None:
    store = ArtefactStore(tmp_path)
    artefact = store.build(RECIPE, write_data)[0]
    manifest = artefact.manifest
    assert manifest.pop("format") == 2
    write_json(artefact.home / MANIFEST, manifest)
    assert store.find(RECIPE) == artefact
    write_json(artefact.home / MANIFEST, manifest | {"format": 3})
    with pytest.raises(ArtefactError, match="written in format 3, this version reads up to 2"):
        store.build(RECIPE, must_not_run)
