"""Rows through a pool of actors: a frozen model applied once to every row, by Ray Data.

Rows are sorted by length, so that batches need little padding. Every finished batch is committed to a scratch folder;
an interrupted pass continues with the missing rows.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import ray
import ray.data

from pipelines.cluster import ClusterConfig
from pipelines.progress import Bar
from pipelines.store.storage import Storage

ROW = "row"  # position of a row among all rows of the pass


def map_rows(
    rows: pa.Table,
    lengths: np.ndarray,
    actor: type,
    arguments: Mapping[str, Any],
    *,
    batch_size: int,
    cluster: ClusterConfig,
    scratch: Path,
    storage: Storage,
    bar: Bar,
) -> ds.Dataset:
    """Apply `actor(**arguments)` to batches of `rows`; the results as a dataset of Parquet files with a `row` column.

    `lengths` [N] orders the rows; `actor` maps a dict of columns to a dict of columns of the same length, and the
    column `row` is carried along for it.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    done = _rows_done(scratch)
    order = np.argsort(-lengths, kind="stable")
    order = order[~np.isin(order, done)]
    finished = len(done)
    bar.update(finished, len(rows))
    if len(order):
        table = rows.take(pa.array(order)).append_column(ROW, pa.array(order))
        # Contiguous blocks keep rows of like length together; several per actor keep the actors equally busy.
        blocks = [table.slice(start, batch_size) for start in range(0, len(table), batch_size)]
        for batch in _results(blocks, actor, arguments, cluster):
            _commit(batch, scratch, storage)
            finished += len(batch)
            bar.update(finished, len(rows))
    return _parts(scratch)


def retain(scratch: Path, wanted: pc.Expression, storage: Storage) -> None:
    """Delete the rows of an interrupted pass that are not `wanted`; they are computed again."""
    for path in sorted(scratch.glob("[!.]*.parquet")):
        part = pq.read_table(path)
        kept = part.filter(wanted)
        if len(kept) == len(part):
            continue
        if len(kept):
            _commit(kept, scratch, storage)
        storage.drop([path])


def _results(
    blocks: list[pa.Table], actor: type, arguments: Mapping[str, Any], cluster: ClusterConfig
) -> Iterable[pa.Table]:
    """The results of the actors, block by block."""
    silence_ray_data()
    results = ray.data.from_arrow(blocks).map_batches(
        actor,
        fn_constructor_kwargs=dict(arguments),
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=min(cluster.num_encoders, len(blocks))),
        num_cpus=0 if cluster.use_gpu else 1,
        num_gpus=cluster.gpus_per_encoder if cluster.use_gpu else 0,
    )
    batches: Iterable[pa.Table] = results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    return batches


def silence_ray_data() -> None:
    """Turn off Ray Data's progress output; the stage has its own bar."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def _commit(batch: pa.Table, scratch: Path, storage: Storage) -> None:
    """Write one part atomically, and keep it for the next attempt."""
    name = f"{uuid.uuid4().hex}.parquet"
    draft = scratch / f".{name}"
    pq.write_table(batch, draft)
    os.replace(draft, scratch / name)
    storage.keep(scratch / name)


def _parts(scratch: Path) -> ds.Dataset:
    return ds.dataset(sorted(str(path) for path in scratch.glob("[!.]*.parquet")), format="parquet")


def _rows_done(scratch: Path) -> np.ndarray:
    parts = sorted(scratch.glob("[!.]*.parquet"))
    if not parts:
        return np.empty(0, dtype=np.int64)
    return np.concatenate([pq.read_table(part, columns=[ROW])[ROW].to_numpy() for part in parts])
