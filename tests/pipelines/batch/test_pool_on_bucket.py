"""On a bucket shards stay with their makers: the driver takes hashes, and a kill costs no finished shard."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kcm.errors import ArtefactError
from pipelines.batch.pool import Hands, Made, kept, map_shards
from pipelines.store.artefact import Artefact, ArtefactStore, Recipe
from pipelines.store.features import write_rows
from pipelines.store.objects import ObjectFiles
from pipelines.store.ranges import Ranges
from pipelines.store.upkeep import verify
from tests.pipelines.made_parts import Fetched

SIZES = (2500, 10, 1100)
FOOTER = 2**16  # that pyarrow reads of a file to find its footer
SOURCES, MADE = Recipe("tasks", 1, {}), Recipe("features", 1, {})


class Salted:
    """Writes bytes that no compression makes smaller beside the ids."""

    unfinished: ClassVar[str | None] = None
    calls: ClassVar[int] = 0

    def __call__(self, rows: pa.Table, source: Path) -> tuple[pa.Table, dict[str, float]]:
        Salted.calls += 1
        noise = [hashlib.sha512(str(row).encode()).digest() for row in rows["id"].to_pylist()]
        return pa.table({"id": rows["id"], "noise": noise}), {"rows": len(rows)}


class Watched:
    """Counts what the driver fetches and uploads, which is all that happens outside the hands of workers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fetched, self.uploaded, self.ranges = list[str](), list[str](), 0
        self._in_worker = False
        get, put, do, read = ObjectFiles.get, ObjectFiles.put, Hands.do, Ranges.readinto

        def watched_get(files: ObjectFiles, name: str, target: Path) -> None:
            self.fetched += [] if self._in_worker else [name]
            get(files, name, target)

        def watched_put(files: ObjectFiles, name: str, source: Path, sha256: str) -> None:
            self.uploaded += [] if self._in_worker else [name]
            put(files, name, source, sha256)

        def watched_read(file: Ranges, buffer: Any) -> int:
            length = read(file, buffer)
            self.ranges += 0 if self._in_worker else length
            return length

        def watched_do(hands: Hands, job: Any) -> Any:
            with self._by_worker():
                return do(hands, job)

        for kind, name, function in (
            (ObjectFiles, "get", watched_get),
            (ObjectFiles, "put", watched_put),
            (Ranges, "readinto", watched_read),
            (Hands, "do", watched_do),
        ):
            monkeypatch.setattr(kind, name, function)

    @contextmanager
    def _by_worker(self) -> Iterator[None]:
        self._in_worker = True
        try:
            yield
        finally:
            self._in_worker = False


@pytest.fixture(autouse=True)
def uncalled() -> None:
    Salted.calls = 0


def sources(store: ArtefactStore) -> Artefact:
    """An artefact with shards, of which this node has nothing."""

    def write(folder: Path, scratch: Path) -> None:
        for number, size in enumerate(SIZES):
            ids = np.arange(size) + 10_000 * number
            write_rows(folder, number, pa.table({"id": ids, "text": [f"{row:0900}" for row in ids]}))

    made = store.build(SOURCES, write)[0]
    if store.storage.is_remote:
        shutil.rmtree(store.root)
    return made


def passed(
    store: ArtefactStore, scratch: Path, look: Any = None, *, worker: Any = Salted, together: int = 1024
) -> dict[str, Made]:
    found = store.find(SOURCES)
    assert found is not None
    shards = {name: found.path / name for name in found.manifest["files"]}
    bar: Any = SimpleNamespace(update=lambda done, total: None)
    return map_shards(
        shards,
        worker,
        {},
        rows_per_piece=together,
        cluster=None,
        scratch=scratch,
        storage=store.storage,
        bar=bar,
        look=look,
    )[0]


def built(store: ArtefactStore) -> Artefact:
    """The artefact of a pass."""
    noted: dict[str, str] = {}

    def write(folder: Path, scratch: Path) -> None:
        noted.update(store.storage.place(kept(passed(store, scratch)), folder))
        (folder / "note.json").write_text("{}")

    return store.build(MADE, write, noted)[0]


def hashes(artefact: Artefact) -> Mapping[str, str]:
    found: Mapping[str, str] = artefact.manifest["files"]
    return found


def test_no_byte_of_a_shard_passes_through_the_driver_and_the_manifest_is_that_of_a_disk(
    node_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_disk, in_bucket = ArtefactStore(tmp_path / "storage"), ArtefactStore(node_bucket)
    for store in (on_disk, in_bucket):
        sources(store)
    seen = Watched(monkeypatch)
    found = built(in_bucket)
    assert seen.fetched == []
    assert [Path(name).name for name in seen.uploaded] == ["note.json"]
    assert 0 < seen.ranges <= len(SIZES) * FOOTER < sum(stat.size for stat in in_bucket.storage.files.list("artefacts"))
    assert not list(found.path.glob("*.parquet"))
    assert verify(in_bucket) == (2, [])
    assert hashes(found) == hashes(built(on_disk))
    assert verify(on_disk) == (2, [])


def test_this_process_reads_shards_by_ranges_each_row_group_once_and_leaves_nothing_on_disk(
    node_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the driver asks a server, piece by piece of less than a row group."""
    store = ArtefactStore(node_bucket)
    shards = sources(store)
    size = sum(stat.size for stat in store.storage.files.list(store.storage.name(shards.path)))
    fetched = Fetched(monkeypatch)
    made = passed(store, store.root / "artefacts" / "scratch", together=100)
    assert [each.took["rows"] for each in made.values()] == list(SIZES)
    assert fetched.shards == []
    assert not list(shards.path.glob("*.parquet"))
    assert fetched.ranges < size + 3 * len(SIZES) * FOOTER


def test_the_next_row_group_is_read_while_the_rows_of_one_are_used(
    node_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, group = Event(), pq.ParquetFile.read_row_group

    def watched(file: pq.ParquetFile, number: int) -> pa.Table:
        rows = group(file, number)
        read.set() if number == 1 else None
        return rows

    class Waits(Salted):
        """Goes on once the second row group is there, which no row of the first piece lies in."""

        def __call__(self, rows: pa.Table, source: Path) -> tuple[pa.Table, dict[str, float]]:
            assert read.wait(60) or source.name != "task-0000.parquet"
            return super().__call__(rows, source)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", watched)
    store = ArtefactStore(node_bucket)
    sources(store)
    assert len(passed(store, store.root / "artefacts" / "scratch", worker=Waits, together=100)) == len(SIZES)


def test_a_damaged_source_is_named(node_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ArtefactStore(node_bucket)
    artefact = sources(store)
    shard = store.storage.name(artefact.path / "task-0002.parquet")
    content = bytearray(store.storage.files.read(shard))
    content[1000] ^= 1
    store.storage.files.write(shard, bytes(content))
    monkeypatch.setattr(ArtefactStore, "find", lambda store, recipe: artefact)  # as if size and mark told nothing
    with pytest.raises(ArtefactError, match="CRC checksum verification failed") as error:
        passed(store, store.root / "artefacts" / "scratch")
    assert error.value.where == f"{store.storage.files.uri}/{shard}"


def test_a_kill_between_the_last_shard_and_the_manifest_costs_no_shard(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ArtefactStore(place)
    sources(store)

    def killed(folder: Path, scratch: Path) -> None:
        store.storage.place(kept(passed(store, scratch)), folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.build(MADE, killed)
    calls, seen = Salted.calls, Watched(monkeypatch)
    again = built(store)
    assert Salted.calls == calls
    assert seen.fetched == []
    assert hashes(again).keys() == {"note.json", *(f"task-{number:04}.parquet" for number in range(len(SIZES)))}
    assert verify(store) == (2, [])


def test_a_finished_shard_of_an_interrupted_pass_is_known_by_its_hash_and_looked_at_by_a_worker(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ArtefactStore(place)
    sources(store)
    scratch = store.root / "artefacts" / "scratch"
    first = passed(store, scratch, pq.read_schema)
    monkeypatch.setenv("KCM_CACHE", str(tmp_path / "another node"))
    another, calls, seen = ArtefactStore(place), Salted.calls, Watched(monkeypatch)
    scratch = another.root / "artefacts" / "scratch"
    again = passed(another, scratch, pq.read_schema)
    assert (Salted.calls, seen.fetched) == (calls, [])
    for name, made in first.items():
        assert (again[name].kept.sha256, again[name].took) == (made.kept.sha256, made.took)
        assert again[name].seen.names == ["id", "noise"]


def test_a_join_that_was_done_by_an_actor_which_died_is_not_missed(
    node_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pieces are gone, and Ray asks for it once more."""
    store = ArtefactStore(node_bucket)
    sources(store)
    do = Hands.do

    def twice(hands: Hands, job: Any) -> Any:
        found = do(hands, job)
        return do(hands, job) if job.parts else found

    monkeypatch.setattr(Hands, "do", twice)
    made = passed(store, store.root / "artefacts" / "scratch")
    assert [each.took["rows"] for each in made.values()] == list(SIZES)


def test_another_attempts_leftover_on_this_node_is_not_taken_for_what_the_storage_has(node_bucket: str) -> None:
    store = ArtefactStore(node_bucket)
    sources(store)
    scratch = store.root / "artefacts" / "scratch"
    made = passed(store, scratch)
    name, expected = next(iter(made.items()))
    (scratch / name).write_bytes(b"half a shard")
    again = passed(store, scratch, pq.read_schema)[name]
    assert (again.kept, again.seen.names) == (expected.kept, ["id", "noise"])
