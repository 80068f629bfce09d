"""A storage of the layout before attempts is read as it is, and is brought to today's, whenever that is interrupted."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from kcm.errors import ArtefactError
from pipelines.store import migrate
from pipelines.store.artefact import Artefact, ArtefactStore, Recipe, write_json
from pipelines.store.manifest import MANIFEST
from pipelines.store.migrate import Migrated, migrate_artefacts

FIRST = Recipe("tasks", 2, {"content": "abc"})


def of_format_1(root: Path, recipe: Recipe, content: str) -> Path:
    """Write an artefact as it lay before attempts: its files beside its manifest, which has no number."""
    home = root / "artefacts" / recipe.stage / recipe.fingerprint
    (home / "below").mkdir(parents=True)
    (home / "data.txt").write_text(content)
    (home / "below" / "more.txt").write_text("more")
    files = {name: hashlib.sha256((home / name).read_bytes()).hexdigest() for name in ("below/more.txt", "data.txt")}
    (home / MANIFEST).write_text(json.dumps(recipe.as_json() | {"files": files}))
    return home


@pytest.fixture
def recipes(tmp_path: Path) -> tuple[Recipe, Recipe]:
    """Two artefacts of an earlier version, the second made of the first."""
    home = of_format_1(tmp_path, FIRST, "rows")
    second = Recipe("features", 1, {"encoder": "tiny"}, (Artefact("tasks", FIRST.fingerprint, home),))
    of_format_1(tmp_path, second, "vectors")
    return FIRST, second


def found(root: Path, recipes: tuple[Recipe, Recipe]) -> list[str]:
    """What is read of both, the first by way of the second."""
    store = ArtefactStore(root)
    second = store.find(recipes[1])
    assert second is not None
    first = second.source(Artefact, "tasks")
    return [(each.folder / "data.txt").read_text() for each in (first, second)]


def test_artefacts_of_an_earlier_version_are_found_as_they_are(tmp_path: Path, recipes) -> None:
    assert found(tmp_path, recipes) == ["rows", "vectors"]


def test_they_are_moved_into_attempts_once(tmp_path: Path, recipes) -> None:
    assert migrate_artefacts(tmp_path) == Migrated(moved=2)
    assert found(tmp_path, recipes) == ["rows", "vectors"]
    home = tmp_path / "artefacts" / "tasks" / FIRST.fingerprint
    assert sorted(path.name for path in home.iterdir()) == ["attempt-migrated", MANIFEST]
    assert migrate_artefacts(tmp_path) == Migrated(current=2)


@pytest.mark.parametrize("step", range(1, 11))
def test_a_migration_that_is_killed_goes_on_where_it_was(tmp_path: Path, recipes, monkeypatch, step: int) -> None:
    """Killed before and after each link, and before and after each manifest, in turn."""
    left = step

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt

    def dying(change):
        def changed(*args):
            count()
            change(*args)
            count()

        return changed

    with monkeypatch.context() as patched, suppress(KeyboardInterrupt):
        patched.setattr(migrate, "os", SimpleNamespace(link=dying(os.link)))
        patched.setattr(migrate, "write_json", dying(write_json))
        migrate_artefacts(tmp_path)
    assert left <= 0
    assert found(tmp_path, recipes) == ["rows", "vectors"]
    migrate_artefacts(tmp_path)
    assert found(tmp_path, recipes) == ["rows", "vectors"]
    assert migrate_artefacts(tmp_path) == Migrated(current=2)
    assert {path.name for path in tmp_path.glob("artefacts/*/*/*")} == {"attempt-migrated", MANIFEST}


def test_what_is_damaged_is_left_for_its_stage_to_compute_anew(tmp_path: Path, recipes) -> None:
    home = tmp_path / "artefacts" / "tasks" / FIRST.fingerprint
    (home / "data.txt").write_text("other rows")
    assert migrate_artefacts(tmp_path) == Migrated(moved=1, damaged=1)
    assert (home / "data.txt").read_text() == "other rows"


def test_what_is_no_storage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="no artefacts here"):
        migrate_artefacts(tmp_path)
