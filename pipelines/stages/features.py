"""Stage `features`: every row through the frozen encoder, once, by a pool of Ray Data actors."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from kcm.encoders import EncoderConfig, encode_readable
from kcm.errors import DataError
from kcm.inputs.content import contents
from kcm.learners.stream import ROWS_PER_GROUP, list_column, matrix
from kcm.tasks import TaskSequence
from pipelines.batch.pool import ROW, map_rows
from pipelines.context import Context
from pipelines.progress import Bar
from pipelines.store.artefact import Artefact, Recipe

VERSION = 1
SECONDS = "seconds"  # what encoding a row took, on one actor: the cost of a call


class Encode:
    """Actor that adds `features` [N, D] and the seconds each row took."""

    def __init__(self, encoder: EncoderConfig, assets_dir: Path, device: str) -> None:
        self._encoder = encoder.build(assets_dir, device)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Encode the columns `text` and `image`; the result's others are `row`, `seconds` and `fault`.

        `fault` says why a row cannot be read, whose features are NaN.
        """
        started = time.perf_counter()
        readable_ND, faults = encode_readable(self._encoder, contents(batch["text"].tolist(), batch["image"].tolist()))
        num_rows = len(batch[ROW])
        features_ND = np.full((num_rows, self._encoder.dim), np.nan, dtype=np.float32)
        features_ND[[row not in faults for row in range(num_rows)]] = readable_ND
        seconds = np.full(num_rows, (time.perf_counter() - started) / num_rows)
        reasons = np.array([faults.get(row, "") for row in range(num_rows)], dtype=object)
        return {ROW: batch[ROW], "features": features_ND, SECONDS: seconds, "fault": reasons}


def features(context: Context, tasks: Artefact, encoder: EncoderConfig, *, label: str = "features") -> Artefact:
    """One Parquet file per task, in the order of its rows: id, split, label, group, features [D], seconds.

    DataError naming the row ids when the encoder cannot read a row, or gives a NaN.
    """
    section = {
        "encoder": encoder.model_dump(mode="json", exclude=set(encoder.operational)),
        "identity": encoder.identity(context.config.assets_path),
        "device": context.config.cluster.device,
    }

    def write(folder: Path, scratch: Path, bar: Bar) -> None:
        sequence = TaskSequence.load(tasks.folder)
        rows = [sequence.rows(number) for number in range(len(sequence.tasks))]
        inputs = pa.concat_tables([table.select(["text", "image"]) for table in rows])
        parts = _pass(context, encoder, inputs, scratch, bar)
        start = 0
        for number, table in enumerate(rows):
            _write_task(task_file(folder, number), table, parts, start)
            start += len(table)

    return context.build(Recipe("features", VERSION, section, (tasks,)), write, label=label)


def encoded(context: Context, encoder: EncoderConfig, rows: pa.Table, *, scratch: Path, bar: Bar) -> np.ndarray:
    """Features float32 [N, D] of rows with the columns id, text and image, by the same actors as the stage's.

    DataError naming the row ids when the encoder cannot read a row, or gives a NaN.
    """
    parts = _pass(context, encoder, rows.select(["text", "image"]), scratch, bar).to_table().sort_by(ROW)
    features_ND = rows_of_lists(parts["features"])
    _refuse_nan(features_ND, parts["fault"], rows["id"])
    return features_ND


def task_file(folder: Path, number: int) -> Path:
    """Where an artefact keeps the rows of task `number`."""
    return folder / f"task-{number:04d}.parquet"


def write_rows(path: Path, table: pa.Table) -> None:
    """Write a task's rows in the row groups that training reads by index."""
    pq.write_table(table, path, row_group_size=ROWS_PER_GROUP)


def _write_task(path: Path, table: pa.Table, parts: ds.Dataset, start: int) -> None:
    mine = (pc.field(ROW) >= start) & (pc.field(ROW) < start + len(table))
    part = parts.to_table(filter=mine).sort_by(ROW)
    values_ND = rows_of_lists(part["features"])
    _refuse_nan(values_ND, part["fault"], table["id"])
    group = pc.if_else(pc.equal(table["group"], ""), None, table["group"])  # a row without one stands alone
    columns = table.drop_columns(["text", "image", "group"]).append_column("group", group)
    columns = columns.append_column("features", list_column(values_ND)).append_column(SECONDS, part[SECONDS])
    write_rows(path, columns)


def _pass(context: Context, encoder: EncoderConfig, inputs: pa.Table, scratch: Path, bar: Bar) -> ds.Dataset:
    """Rows with the columns text and image through a pool of actors."""
    cluster = context.config.cluster
    return map_rows(
        inputs,
        pc.utf8_length(inputs["text"]).to_numpy(),
        Encode,
        {"encoder": encoder, "assets_dir": context.config.assets_path, "device": cluster.device},
        batch_size=encoder.batch_size,
        cluster=cluster,
        scratch=scratch,
        bar=bar,
    )


def _refuse_nan(values_ND: np.ndarray, faults: pa.ChunkedArray, ids: pa.ChunkedArray) -> None:
    """Raise DataError that names rows without features, and why they have none."""
    if not len(bad := np.flatnonzero(~np.isfinite(values_ND).all(axis=1))):
        return
    named = [(ids[row].as_py(), faults[row].as_py()) for row in bad[:5].tolist()]
    shown = ", ".join(f"{name} ({fault})" if fault else name for name, fault in named)
    raise DataError(
        f"the encoder gave NaN for {len(bad)} rows: {shown}", mend="Check these rows, the encoder's dtype and weights"
    )


def rows_of_lists(column: pa.ChunkedArray) -> np.ndarray:
    """Ray Data stores matrices as tensors or lists, by version; either way one row each."""
    chunks = [chunk.to_numpy_ndarray() if hasattr(chunk, "to_numpy_ndarray") else None for chunk in column.chunks]
    if all(chunk is not None for chunk in chunks):
        return np.concatenate(chunks).astype(np.float32, copy=False)
    return np.stack([np.asarray(value, dtype=np.float32) for value in column.to_pylist()])


def read_features(folder: Path, number: int, *, split: str | None = None) -> pa.Table:
    """The rows of one task, or of one of its splits."""
    where = None if split is None else pc.field("split") == split
    return pq.read_table(task_file(folder, number), filters=where)


def feature_matrix(table: pa.Table) -> np.ndarray:
    """The features of a table's rows as float32 [N, D]."""
    return matrix(table["features"])
