"""Shards of a bucket are made by actors that share no files with the driver, whatever their number and their deaths."""

import os
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipelines.batch.mapping import map_items
from pipelines.batch.shards import map_shards, write_shard
from pipelines.cluster.config import ClusterConfig
from pipelines.store.files import Files
from pipelines.store.storage import Storage

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]
SIZES = (2500, 10)


@pytest.fixture
def storage(served_bucket: str, tmp_path: Path) -> Storage:
    """A bucket whose folder on this node, and so on every other, can hold no file: it would lie in a file."""
    (tmp_path / "file").touch()
    return Storage(Files(served_bucket), tmp_path / "file" / "node")


def doubled(death: Path | None) -> Any:
    """Doubles numbers; the process that meets row 700 first dies."""

    def double(rows: pa.Table) -> tuple[pa.Table, dict[str, float]]:
        if death is not None and 700 in rows["id"].to_pylist() and not death.exists():
            death.touch()
            os._exit(1)
        return pa.table({"id": rows["id"], "doubled": pc.multiply(rows["id"], 2)}), {"rows": len(rows)}

    return double


def made(storage: Storage, name: str, num_encoders: int, build: Any) -> dict[str, float]:
    sources = {}
    for number, size in enumerate(SIZES):
        source = storage.root / "tasks" / f"task-{number:04}.parquet"
        write_shard(storage, [pa.table({"id": np.arange(size)})], source)
        sources[source.name] = source
    bar: Any = SimpleNamespace(update=lambda done, total: None)
    context = SimpleNamespace(store=SimpleNamespace(storage=storage), cluster=ClusterConfig(num_encoders=num_encoders))
    attempt: Any = SimpleNamespace(context=context, bar=bar)
    return map_shards(attempt, sources, build, storage.root / name, storage.root / f"{name} units", rows_per_unit=100)


def test_no_actor_needs_foreign_files_and_death_costs_no_row(storage: Storage, tmp_path: Path) -> None:
    """Promise: no actor needs a file of another node and a death costs no row."""
    alone = made(storage, "one", 1, partial(doubled, None))
    assert alone == {"rows": sum(SIZES)}
    assert made(storage, "three", 3, partial(doubled, tmp_path / "death")) == alone
    assert (tmp_path / "death").exists()
    one, three = (storage.files.sha256(f"{name}/task-0000.parquet") for name in ("one", "three"))
    assert one == three


def test_results_come_in_the_order_of_the_items() -> None:
    assert list(map_items(str, range(40))) == list(map(str, range(40)))
