"""Rows through a frozen encoder, by a pool of actors; vectors that come with the rows are copied instead."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from kcm.encoders import EncoderConfig, encode_readable
from kcm.errors import DataError
from kcm.inputs.content import Content, PartError
from kcm.parquet import read_table
from kcm.tasks.columns import matrix
from kcm.tasks.sequence import VECTOR
from kcm.tasks.shards import SHARD_ROWS, ShardWriter, task_shards
from pipelines.batch.pieces import Took, Worker, sizes_of
from pipelines.batch.pool import Made, map_shards
from pipelines.context import Context
from pipelines.progress import Bar
from pipelines.store.features import feature_matrix, features_table
from pipelines.store.sequence import contents_of


class Encode:
    """Gives rows their features, and the seconds that each took."""

    unfinished: ClassVar[str | None] = None

    def __init__(self, encoder: EncoderConfig, assets_dir: Path, device: str) -> None:
        self._encoder = encoder.build(assets_dir, device)

    def __call__(self, rows: pa.Table, source: Path) -> tuple[pa.Table, Took]:
        """DataError that names the rows which cannot be read, and those that the encoder gives a NaN for."""
        started = time.perf_counter()
        readable_MD, faults = encode_readable(self._encoder, contents_of(rows))
        features_ND = np.full((len(rows), self._encoder.dim), np.nan, dtype=np.float32)
        features_ND[[row not in faults for row in range(len(rows))]] = readable_MD
        not_finite = np.flatnonzero(~np.isfinite(features_ND).all(axis=1)).tolist()
        refuse({row: faults.get(row, "NaN") for row in not_finite}, rows["id"])
        seconds_N = np.full(len(rows), (time.perf_counter() - started) / max(1, len(rows)))
        return features_table(rows, features_ND, seconds_N), {}


class Copy:
    """Takes the rows' own vectors as their features, at no cost."""

    unfinished: ClassVar[str | None] = None

    def __init__(self, encoder: EncoderConfig, assets_dir: Path) -> None:
        self._check = encoder.reader(assets_dir)

    def __call__(self, rows: pa.Table, source: Path) -> tuple[pa.Table, Took]:
        """DataError that names the rows whose vectors are not those of the encoder, or not finite."""
        features_ND = matrix(rows[VECTOR])
        faults = {}
        for row in {0, *np.flatnonzero(~np.isfinite(features_ND).all(axis=1)).tolist()} if len(rows) else ():
            try:  # all rows have vectors of one length, so that one tells whether it is the right one
                self._check(Content(vector=features_ND[row]))
            except PartError as error:
                faults[row] = str(error)
        refuse(faults, rows["id"])
        return features_table(rows, features_ND, np.zeros(len(rows))), {}


def encode_shards(
    context: Context,
    encoder: EncoderConfig,
    sources: Mapping[str, Path],
    *,
    scratch: Path,
    bar: Bar,
    look: Callable[[Path], Any] | None = None,
) -> dict[str, Made]:
    """A file with the features of every shard: the files by name below `scratch`, and what `look` sees in each.

    DataError that names rows which cannot be read, or have no finite features.
    """
    arguments: dict[str, Any] = {"encoder": encoder, "assets_dir": context.assets_path}
    if encoder.vector_columns:
        work: type[Worker] = Copy
        together = SHARD_ROWS
    else:
        work, arguments = Encode, arguments | {"device": context.cluster.device}
        total = sum(sizes_of(sources, context.store.storage).values())
        together = rows_together(total, encoder.batch_size, context.cluster.num_encoders)
    made, _ = map_shards(
        sources,
        work,
        arguments,
        rows_per_piece=together,
        cluster=context.cluster,
        scratch=scratch,
        storage=context.store.storage,
        bar=bar,
        look=look,
    )
    return made


def encoded(context: Context, encoder: EncoderConfig, rows: pa.Table, *, scratch: Path, bar: Bar) -> np.ndarray:
    """Features float32 [N, D] of rows with the columns id, text and image, by the actors.

    DataError naming the row ids when the encoder cannot read a row, or gives a NaN.
    """
    given = scratch / "rows"
    given.mkdir(parents=True, exist_ok=True)
    with ShardWriter(given, 0, rows.schema) as writer:
        writer.write(rows)
    storage = context.store.storage
    storage.keep(given)  # actors of other nodes read them
    sources = {file.name: file for file in task_shards(given, 0)}
    made = encode_shards(context, encoder, sources, scratch=scratch, bar=bar)
    files = [storage.fetch(each.kept.path) for each in made.values()]
    return np.concatenate([feature_matrix(read_table(file, columns=["features"])) for file in files])


def rows_together(total: int, batch_size: int, num_actors: int) -> int:
    """Rows that an actor encodes and commits together, several forward passes of them.

    Each piece costs what a dozen rows cost; with sixteen pieces or more for every actor all end at about the same time.
    """
    return max(batch_size, min(8 * batch_size, total // (16 * num_actors)))


def refuse(faults: Mapping[int, str], ids: pa.ChunkedArray) -> None:
    """Raise DataError that names rows without features, and why they have none."""
    if not faults:
        return
    named = ", ".join(f"{ids[row]} ({fault})" for row, fault in sorted(faults.items())[:5])
    raise DataError(
        f"no features for {len(faults)} rows: {named}", hint="Check these rows, the encoder's dtype and weights"
    )
