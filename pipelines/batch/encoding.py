"""Rows through a frozen encoder, by a pool of Ray Data actors."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from kcm.encoders import EncoderConfig, encode_readable
from kcm.errors import DataError
from kcm.inputs.content import contents
from pipelines.batch.pool import ROW, map_rows
from pipelines.context import Context
from pipelines.progress import Bar
from pipelines.store.features import SECONDS, rows_of_lists


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


def encoded(context: Context, encoder: EncoderConfig, rows: pa.Table, *, scratch: Path, bar: Bar) -> np.ndarray:
    """Features float32 [N, D] of rows with the columns id, text and image, by the actors.

    DataError naming the row ids when the encoder cannot read a row, or gives a NaN.
    """
    parts = encode_rows(context, encoder, rows.select(["text", "image"]), scratch, bar).to_table().sort_by(ROW)
    features_ND = rows_of_lists(parts["features"])
    refuse_nan(features_ND, parts["fault"], rows["id"])
    return features_ND


def encode_rows(context: Context, encoder: EncoderConfig, inputs: pa.Table, scratch: Path, bar: Bar) -> ds.Dataset:
    """Rows with the columns text and image through the actors: row, features, seconds and fault, in no order."""
    return map_rows(
        inputs,
        pc.utf8_length(inputs["text"]).to_numpy(),
        Encode,
        {"encoder": encoder, "assets_dir": context.assets_path, "device": context.cluster.device},
        batch_size=_rows_together(len(inputs), encoder.batch_size, context.cluster.num_encoders),
        cluster=context.cluster,
        scratch=scratch,
        storage=context.store.storage,
        bar=bar,
    )


def _rows_together(num_rows: int, batch_size: int, num_actors: int) -> int:
    """Rows that travel to an actor and are committed together, several forward passes of them.

    Each block costs what a dozen rows cost; with sixteen blocks or more for every actor all end at about the same time.
    """
    return max(batch_size, min(8 * batch_size, num_rows // (16 * num_actors)))


def refuse_nan(values_ND: np.ndarray, faults: pa.ChunkedArray, ids: pa.ChunkedArray) -> None:
    """Raise DataError that names rows without features, and why they have none."""
    if not len(bad := np.flatnonzero(~np.isfinite(values_ND).all(axis=1))):
        return
    named = [(ids[row].as_py(), faults[row].as_py()) for row in bad[:5].tolist()]
    shown = ", ".join(f"{name} ({fault})" if fault else name for name, fault in named)
    raise DataError(
        f"the encoder gave NaN for {len(bad)} rows: {shown}", mend="Check these rows, the encoder's dtype and weights"
    )
