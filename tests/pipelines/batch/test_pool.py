"""A pass makes every shard's rows in their order, keeps what is committed, and says which shard cannot be read."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from kcm.errors import ArtefactError
from pipelines.batch.pool import map_shards
from pipelines.store.features import write_rows
from pipelines.store.storage import Storage


class Doubled:
    """Doubles numbers, and is interrupted after some calls."""

    unfinished: ClassVar[str | None] = None
    left: ClassVar[int] = 10**9
    calls: ClassVar[int] = 0

    def __call__(self, rows, source):
        if Doubled.left == 0:
            raise KeyboardInterrupt
        Doubled.left, Doubled.calls = Doubled.left - 1, Doubled.calls + 1
        return pa.table({"id": rows["id"], "doubled": pc.multiply(rows["id"], 2)}), {"rows": len(rows)}


@pytest.fixture(autouse=True)
def uninterrupted():
    Doubled.left, Doubled.calls = 10**9, 0


@pytest.fixture
def shards(tmp_path):
    for number, size in enumerate((2500, 10)):
        write_rows(tmp_path, number, pa.table({"id": np.arange(size) + 10_000 * number}))
    return {path.name: path for path in sorted(tmp_path.glob("*.parquet"))}


def run(shards, tmp_path, together=300):
    marks = []
    bar = SimpleNamespace(update=lambda done, total: marks.append((done, total)))
    made, took = map_shards(
        shards,
        Doubled,
        {},
        rows_per_piece=together,
        cluster=None,
        scratch=tmp_path / "scratch",
        storage=Storage.at(tmp_path),
        bar=bar,
    )
    return made, took, marks


@pytest.mark.parametrize("together", [1, 300, 1024, 10_000])
def test_rows_come_in_their_order_whatever_is_committed_together(shards, tmp_path, together) -> None:
    shards = {name: path for name, path in shards.items() if together > 1 or "0001" in name}
    made, took, marks = run(shards, tmp_path, together)
    for name, path in shards.items():
        table = pq.read_table(made[name].kept.path)
        assert table["id"].equals(pq.read_table(path)["id"])
        assert table["doubled"].to_pylist() == [2 * number for number in table["id"].to_pylist()]
    total = sum(pq.read_metadata(path).num_rows for path in shards.values())
    assert took == {"rows": total}
    assert marks[-1] == (total, total)
    assert not list((tmp_path / "scratch").glob("*.piece"))


def test_an_interrupted_pass_goes_on_with_what_is_missing(shards, tmp_path) -> None:
    Doubled.left = 4
    with pytest.raises(KeyboardInterrupt):
        run(shards, tmp_path)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "scratch").glob("[!.]*")}
    assert len(kept) == 4
    Doubled.left = 10**9
    made, took, _ = run(shards, tmp_path)
    assert Doubled.calls == 9 + 1
    assert took == {"rows": 2510}
    assert pq.read_table(made["task-0000.parquet"].kept.path)["id"].to_pylist() == list(range(2500))


def test_a_finished_pass_is_not_done_again(shards, tmp_path) -> None:
    run(shards, tmp_path)
    calls = Doubled.calls
    assert run(shards, tmp_path)[1] == {"rows": 2510}
    assert Doubled.calls == calls


def test_a_cut_shard_is_named(shards, tmp_path) -> None:
    path = shards["task-0000.parquet"]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ArtefactError, match="the file cannot be read") as error:
        run(shards, tmp_path)
    assert error.value.where == str(path)


@pytest.mark.parametrize("worker", ["encoding", "asking", "lookup", "classifying"])
def test_an_actor_starts_without_what_only_training_needs(worker: str) -> None:
    """A run waits for each of these processes: torch, Ray Data and MLflow take it longer than a thousand rows."""
    script = (
        f"import pipelines.batch.{worker}, sys; print(sorted({{'mlflow', 'ray.data', 'torch'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == "[]\n"
