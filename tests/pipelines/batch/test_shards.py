"""Every shard is made with its rows in their order, what is committed is kept, and no node needs another's files."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from kcm.errors import ArtefactError
from kcm.parquet import read_table
from kcm.tasks.shards import write_shards
from pipelines.batch.shards import map_shards
from pipelines.batch.units import FAILED
from pipelines.store.artefact import Artefact, ArtefactStore, Recipe
from tests.damage import damaged
from tests.pipelines.made_parts import Fetched

SIZES = (2500, 10, 0)
NUM_ROWS = sum(SIZES)
SOURCES, MADE = Recipe("tasks", 1, {}), Recipe("features", 1, {})


class Doubler:
    """Doubles numbers; is interrupted after some calls, and fails on some rows."""

    left: ClassVar[int] = 10**9
    calls: ClassVar[int] = 0
    failures: ClassVar[int] = 0

    def __call__(self, rows: pa.Table) -> tuple[pa.Table, dict[str, float]]:
        if Doubler.left == 0:
            raise KeyboardInterrupt
        Doubler.left, Doubler.calls = Doubler.left - 1, Doubler.calls + 1
        failed: dict[str, float] = {f"{FAILED}tired": 1} if Doubler.calls <= Doubler.failures else {}
        doubled = pa.table({"id": rows["id"], "doubled": pc.multiply(rows["id"], 2)})
        return doubled, {"rows": len(rows)} | failed


@pytest.fixture(autouse=True)
def uninterrupted() -> None:
    Doubler.left, Doubler.calls, Doubler.failures = 10**9, 0, 0


@pytest.fixture
def store(place: str) -> ArtefactStore:
    """A storage with an artefact of three shards, of which this node has nothing if it is a bucket."""
    store = ArtefactStore(place)

    def write(folder: Path, scratch: Path) -> None:
        for number, size in enumerate(SIZES):
            write_shards(folder, number, [pa.table({"id": np.arange(size) + 10_000 * number})])

    store.build(SOURCES, write)
    if store.storage.is_remote:
        shutil.rmtree(store.root)
    return store


def shards_of(store: ArtefactStore) -> dict[str, Path]:
    found = store.find(SOURCES)
    assert found is not None
    return {name: found.path / name for name in found.manifest["files"]}


def mapped(
    store: ArtefactStore, folder: Path, scratch: Path, together: int = 300, sources: dict[str, Path] | None = None
) -> tuple[Any, ...]:
    """Counts, and what the bar showed."""
    marks: list[tuple[int, int]] = []
    bar: Any = SimpleNamespace(update=lambda done, total: marks.append((done, total)))
    attempt: Any = SimpleNamespace(context=SimpleNamespace(store=store, cluster=None), bar=bar)
    counts = map_shards(attempt, sources or shards_of(store), Doubler, folder, scratch, rows_per_unit=together)
    return counts, marks


def built(store: ArtefactStore, together: int = 300) -> Artefact:
    """The artefact of a pass."""

    def write(folder: Path, scratch: Path) -> None:
        mapped(store, folder, scratch, together)
        (folder / "note.json").write_text("{}")

    return store.build(MADE, write)[0]


@pytest.mark.parametrize("together", [70, 1024, 10_000])
def test_rows_come_in_their_order_whatever_is_made_together(store: ArtefactStore, together: int) -> None:
    folder, scratch = store.root / "made", store.root / "scratch"
    counts, marks = mapped(store, folder, scratch, together)
    for name, source in shards_of(store).items():
        table = read_table(store.storage.readable(folder / name))
        assert table["id"].equals(read_table(store.storage.readable(source))["id"])
        assert table["doubled"].to_pylist() == [2 * number for number in table["id"].to_pylist()]
    assert counts == {"rows": NUM_ROWS}
    assert marks[-1] == (NUM_ROWS, NUM_ROWS)


def test_interrupted_pass_resumes_on_another_node(
    store: ArtefactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: an interrupted pass goes on with what is missing on another node."""
    Doubler.left = 5
    with pytest.raises(KeyboardInterrupt):
        built(store)
    Doubler.left = 10**9
    monkeypatch.setenv("KCM_CACHE", str(tmp_path / "another node"))
    again = ArtefactStore(store.storage.files.uri)
    made = built(again)
    assert Doubler.calls == 9 + 2 + 1 + 1, "nine units of a shard, of which two cross row groups, and one of each other"
    assert (len(again.homes()), damaged(again)) == (2, [])
    assert set(made.manifest["files"]) == {*shards_of(again), "note.json"}


def test_units_with_failed_rows_are_made_again_and_counted_anew(store: ArtefactStore) -> None:
    folder, scratch = store.root / "made", store.root / "scratch"
    Doubler.failures = 1
    assert mapped(store, folder, scratch, 1024)[0] == {"rows": NUM_ROWS, f"{FAILED}tired": 1}
    calls = Doubler.calls
    assert mapped(store, folder, scratch, 1024)[0] == {"rows": NUM_ROWS}
    assert Doubler.calls == calls + 1
    assert mapped(store, folder, scratch, 1024)[0] == {"rows": NUM_ROWS}
    assert Doubler.calls == calls + 1


def test_bucket_shards_are_read_in_parts_and_not_kept(
    node_bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Promise: on a bucket no shard is fetched as a whole and nothing is left on this node."""
    store = ArtefactStore(node_bucket)

    def write(folder: Path, scratch: Path) -> None:
        write_shards(folder, 0, [pa.table({"id": np.random.default_rng(0).integers(0, 2**60, 5000)})])

    store.build(SOURCES, write)
    shutil.rmtree(store.root)
    fetched = Fetched(monkeypatch)
    made = built(store, together=512)
    assert fetched.shards == []
    assert not list(store.root.rglob("*.parquet"))
    assert (len(store.homes()), damaged(store)) == (2, [])
    assert [name for name in made.manifest["files"] if name.endswith(".parquet")] == ["task-0000.parquet"]
    assert store.storage.names(made.home / "scratch") == []


def test_a_damaged_shard_is_named(place: str, store: ArtefactStore) -> None:
    sources = shards_of(store)
    name = store.storage.name(sources["task-0000.parquet"])
    content = bytearray(store.storage.files.read(name))
    content[1000] ^= 1
    store.storage.files.write(name, bytes(content))
    with pytest.raises(ArtefactError, match="CRC checksum verification failed") as error:
        mapped(store, store.root / "made", store.root / "scratch", sources=sources)
    assert str(error.value.where).endswith(name)
