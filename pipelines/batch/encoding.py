"""Encode rows with a frozen encoder in a pool of actors; vectors that come with the rows are copied instead."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from kcm.encoders import EncoderConfig, encode_readable
from kcm.encoders.precomputed import vector_columns, vector_fault
from kcm.encoders.text import TextEncoder, TextsWithWords
from kcm.errors import DataError
from kcm.inputs.content import Content
from kcm.inputs.vectors import matrix
from kcm.parquet import read_table
from kcm.tasks.sequence import VECTOR
from kcm.tasks.shards import SHARD_ROWS
from pipelines.batch.shards import map_shards, write_shard
from pipelines.batch.units import Counts, RowFunction
from pipelines.context import Attempt
from pipelines.store.features import CUT, features_table
from pipelines.store.sequence import contents_of

TEXT = "text"  # column of a row's text


def row_encoder(encoder: EncoderConfig, assets_dir: Path, device: str, with_texts: bool = False) -> RowFunction:
    """A function that computes the features of rows, and the seconds per row; `with_texts` repeats their texts.

    It raises DataError, naming the rows, if rows cannot be read or the encoder returns a NaN.
    """
    network = encoder.build(assets_dir, device)

    def encode(rows: pa.Table) -> tuple[pa.Table, Counts]:
        started = time.perf_counter()
        contents = contents_of(rows)
        readable_MD, faults = encode_readable(network, contents)
        features_ND = np.full((len(rows), network.dim), np.nan, dtype=np.float32)
        features_ND[[row not in faults for row in range(len(rows))]] = readable_MD
        not_finite = np.flatnonzero(~np.isfinite(features_ND).all(axis=1)).tolist()
        _refuse({row: faults.get(row, "NaN") for row in not_finite}, rows["id"])
        seconds_N = np.full(len(rows), (time.perf_counter() - started) / max(1, len(rows)))
        cut = 0
        if isinstance(network, TextEncoder | TextsWithWords):
            cut = network.num_cut([content.text for content in contents])
        table = features_table(rows, features_ND, seconds_N)
        return table.append_column(TEXT, rows[TEXT]) if with_texts else table, {CUT: cut}

    return encode


def vector_copier(encoder: EncoderConfig) -> RowFunction:
    """A function that uses the rows' own vectors as their features, at no cost.

    It raises DataError, naming the rows, if vectors do not fit the encoder or are not finite.
    """
    dim = getattr(encoder, "dim", None)

    def copy(rows: pa.Table) -> tuple[pa.Table, Counts]:
        features_ND = matrix(rows[VECTOR])
        # All vectors of a table have one length, so checking the first is enough.
        suspects = {0, *np.flatnonzero(~np.isfinite(features_ND).all(axis=1)).tolist()} if len(rows) else set()
        faults = {row: vector_fault(Content(vector=features_ND[row]), dim) for row in suspects}
        _refuse({row: fault for row, fault in faults.items() if fault}, rows["id"])
        return features_table(rows, features_ND, np.zeros(len(rows))), {}

    return copy


def encode_shards(
    attempt: Attempt,
    encoder: EncoderConfig,
    sources: Mapping[str, Path],
    folder: Path,
    scratch: Path,
    *,
    with_texts: bool = False,
) -> int:
    """Write a file with the features of every shard to `folder`; returns the number of texts that were cut.

    Raises DataError, naming the rows, if rows cannot be read or have no finite features.
    """
    context = attempt.context
    if vector_columns(encoder):
        build, at_least = partial(vector_copier, encoder), None
    else:
        build = partial(row_encoder, encoder, context.assets_path, context.cluster.device, with_texts)
        at_least = encoder.batch_size
    return int(map_shards(attempt, sources, build, folder, scratch, at_least=at_least).get(CUT, 0))


def encoded(attempt: Attempt, encoder: EncoderConfig, rows: pa.Table, scratch: Path) -> pa.Table:
    """Features of rows with the columns id, text and image, and the seconds per row, computed by the actors.

    Raises DataError, naming the rows, if the encoder cannot read a row or returns a NaN.
    """
    storage, features_folder = attempt.context.store.storage, scratch / "features"
    starts = range(0, max(len(rows), 1), SHARD_ROWS)
    sources = {f"{number:05}": scratch / "rows" / f"{number:05}" for number in range(len(starts))}
    for start, source in zip(starts, sources.values(), strict=True):  # actors of other nodes read them
        write_shard(storage, [rows.slice(start, SHARD_ROWS)], source)
    encode_shards(attempt, encoder, sources, features_folder, scratch / "units")
    return pa.concat_tables([read_table(storage.readable(features_folder / name)) for name in sources])


def _refuse(faults: Mapping[int, str], ids: pa.ChunkedArray) -> None:
    """Raise DataError, naming rows without features and the reasons, if there are any."""
    if not faults:
        return
    named = ", ".join(f"{ids[row]} ({fault})" for row, fault in sorted(faults.items())[:5])
    raise DataError(
        f"no features for {len(faults)} rows: {named}", hint="Check these rows, the encoder's dtype and weights"
    )
