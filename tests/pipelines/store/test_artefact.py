"""An artefact is finished or it is not: half-written and damaged ones are built again, and nothing finished is lost."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from kcm.errors import ArtefactError
from pipelines.store.artefact import MANIFEST, Artefact, ArtefactStore, Recipe, storage_errors, write_json

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
    folder = store.build(RECIPE, write_data)[0].folder
    match damage:
        case "other content":
            (folder / "data.txt").write_text("forty-one")
        case "missing":
            (folder / "data.txt").unlink()
        case "extra":
            (folder / "more.txt").write_text("?")
        case "no manifest":
            (folder / MANIFEST).unlink()
        case "torn manifest":
            (folder / MANIFEST).write_text('{"files": {')
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
    assert sorted(path.name for path in artefact.folder.iterdir()) == ["data.txt", MANIFEST]


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
    assert manifest.pop("format") == 1
    write_json(artefact.folder / MANIFEST, manifest)
    assert store.find(RECIPE) == artefact
    write_json(artefact.folder / MANIFEST, manifest | {"format": 2})
    with pytest.raises(ArtefactError, match="written in format 2, this version reads up to 1"):
        store.build(RECIPE, must_not_run)
