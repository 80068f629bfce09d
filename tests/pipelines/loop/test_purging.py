"""Promise: what was forgotten is in no artefact of earlier versions, and the champion's are as they were.

Who still holds it is told before."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kcm.errors import KcmError, LockedError
from pipelines.loop import purging
from pipelines.loop.purging import purge
from pipelines.loop.window.stage import ROWS
from pipelines.store.artefact import Artefact, ArtefactStore, Recipe
from pipelines.store.garbage import is_emptied
from pipelines.store.lease import leased
from tests.damage import damaged

KEY = b"k" * 32


def build(store: ArtefactStore, stage: str, text: str, *inputs: Artefact) -> Artefact:
    def write(folder: Path, scratch: Path) -> None:
        (folder / "rows.txt").write_text(text)
        if stage in ("window", "ask_again"):
            columns = {name: [None, "secret"] for name in (*purging.ERASED, "small_label")}
            pq.write_table(pa.table({"unit": [None, "ann"]} | columns), folder / ROWS)

    return store.build(Recipe(stage, 1, {"text": text}, inputs), write)[0]


def versions(store: ArtefactStore) -> dict[str, dict[str, Artefact]]:
    """A first version that knows ann, and one that goes on from it without."""
    made: dict[str, dict[str, Artefact]] = {}
    parent: tuple[Artefact, ...] = ()
    for name, stage, rows in (("films/1", "tasks", "ann and eve"), ("films/2", "grow", "eve")):
        window = build(store, "window", name)
        asked = build(store, "ask_again", name, window, *parent)
        sequence = build(store, stage, rows, asked, *parent)
        features = build(store, "features", rows, sequence, *parent)
        trained = build(store, "train", rows, features, *parent)
        bundle = build(store, "register", rows, trained)
        made[name] = {
            "window": window,
            "asked": asked,
            "sequence": sequence,
            "features": features,
            "train": trained,
            "bundle": bundle,
        }
        parent = (trained,)
    return made


@pytest.fixture
def store(place: str) -> ArtefactStore:
    return ArtefactStore(place)


def state_of(store: ArtefactStore, made: dict[str, dict[str, Artefact]], champion: str) -> Any:
    bundles = {name: each["bundle"].fingerprint for name, each in made.items()}
    current = SimpleNamespace(champion=SimpleNamespace(version=champion, bundle=bundles[champion]))
    return SimpleNamespace(
        name="films",
        store=store,
        bundles=lambda: bundles,
        champions=SimpleNamespace(present=lambda: current),
        attempts=SimpleNamespace(interrupted=lambda: None),
    )


@pytest.fixture(autouse=True)
def names_in_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(sequence: Artefact, key: bytes, units: set[str]) -> list[str]:
        text = (sequence.folder / "rows.txt").read_text()
        return [unit for unit in units if key == KEY and unit in text]

    monkeypatch.setattr(purging, "rows_of", found)


def test_earlier_versions_are_emptied_and_the_champion_is_not(store: ArtefactStore) -> None:
    made = versions(store)
    found = purge(state_of(store, made, "films/2"), KEY, {"ann"})
    first, second = made.values()
    assert {each.split("/")[0] for each in found.emptied} == {"tasks", "features", "train"}
    for name in ("sequence", "features", "train"):
        assert is_emptied(first[name])
        assert store.storage.names(first[name].path) == []
        assert (second[name].folder / "rows.txt").read_text() == "eve"
    assert (first["bundle"].folder / "rows.txt").exists()
    assert len(found.windows) == 4  # as they were logged, and as they were answered anew
    for name in ("window", "asked"):
        erased = pq.read_table(first[name].folder / ROWS)
        assert all(erased[column].null_count == 2 for column in purging.ERASED)
        assert erased["small_label"].to_pylist() == [None, "secret"]
    assert damaged(store) == []


def test_emptied_work_is_done_again_where_it_is_asked_for(store: ArtefactStore) -> None:
    made = versions(store)
    purge(state_of(store, made, "films/2"), KEY, {"ann"})
    again = build(store, "tasks", "ann and eve", made["films/1"]["asked"])
    assert not is_emptied(again)
    assert (again.folder / "rows.txt").exists()


def test_a_purge_that_was_killed_goes_on(store: ArtefactStore) -> None:
    made = versions(store)
    first = made["films/1"]
    store.storage.drop([first["sequence"].path])  # the kill came before its manifest was written
    purge(state_of(store, made, "films/2"), KEY, {"ann"})
    assert all(is_emptied(first[name]) for name in ("sequence", "features", "train"))
    assert purge(state_of(store, made, "films/2"), KEY, {"ann"}).emptied == []


def test_nothing_is_removed_before_a_turn_has_trained_without_it(store: ArtefactStore) -> None:
    made = versions(store)
    with pytest.raises(KcmError, match=r"films/1, the champion, was trained on what is to be removed.*kcm update"):
        purge(state_of(store, made, "films/1"), KEY, {"ann"})
    assert not any(is_emptied(each) for each in store.finished(""))


def test_nothing_is_removed_beside_a_turn_or_before_its_end(store: ArtefactStore) -> None:
    made = versions(store)
    state = state_of(store, made, "films/2")
    with leased(store.control, "leases/loop/films", "a turn"), pytest.raises(LockedError, match="in use by"):
        purge(state, KEY, {"ann"})
    state.attempts.interrupted = lambda: "an attempt"
    with pytest.raises(KcmError, match="a turn was interrupted"):
        purge(state, KEY, {"ann"})
    assert not any(is_emptied(each) for each in store.finished(""))
