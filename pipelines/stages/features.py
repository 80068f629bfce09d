"""Stage `features`: every row through the frozen encoder, once."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from kcm.encoders import EncoderConfig
from kcm.learners.stream import list_column
from pipelines.batch.encoding import encode_rows, refuse_nan
from pipelines.batch.pool import ROW
from pipelines.context import Attempt, Context
from pipelines.stages.stage import Plan, Stage
from pipelines.store.artefact import Recipe
from pipelines.store.features import SECONDS, FeaturesArtefact, rows_of_lists, task_file, write_rows
from pipelines.store.sequence import SequenceArtefact


class Encoding(Plan):
    """An encoder with its identity, and the kind of device that it runs on."""

    encoder: EncoderConfig
    identity: str
    device: str

    @classmethod
    def of(cls, encoder: EncoderConfig, context: Context) -> Self:
        """The encoder with its identity on this machine."""
        identity = encoder.identity(context.assets_path)
        return cls(encoder=encoder, identity=identity, device=context.cluster.device)

    def write(self, attempt: Attempt, sequence: SequenceArtefact) -> None:
        """One Parquet file per task, in the order of its rows.

        DataError naming the row ids when the encoder cannot read a row, or gives a NaN.
        """
        loaded = sequence.load()
        rows = [loaded.rows(number) for number in range(len(loaded.tasks))]
        inputs = pa.concat_tables([table.select(["text", "image"]) for table in rows])
        parts = encode_rows(attempt.context, self.encoder, inputs, attempt.scratch, attempt.bar)
        start = 0
        for number, table in enumerate(rows):
            write_task(task_file(attempt.folder, number), table, parts, start)
            start += len(table)

    def build(self, sequence: SequenceArtefact, context: Context, label: str) -> FeaturesArtefact:
        """The features of a sequence as part of the stage `label`."""
        recipe = Recipe(Features.stage, Features.version, self.section(), (sequence,))
        return context.build(recipe, partial(self.write, sequence=sequence), label=label).as_a(FeaturesArtefact)


class Features(Stage):
    """The rows of each task through the collaborator's encoder."""

    stage, version, reads, writes = "features", 1, ("sequence",), FeaturesArtefact

    encoder: EncoderConfig

    def plan(self, context: Context, sequence: SequenceArtefact) -> Encoding:
        """The encoder with the head that was fitted for it."""
        return Encoding.of(sequence.with_head(self.encoder), context)


def write_task(path: Path, table: pa.Table, parts: ds.Dataset, start: int) -> None:
    """Write the features of a task's rows; `start` is its first row among all rows of the pass."""
    mine = (pc.field(ROW) >= start) & (pc.field(ROW) < start + len(table))
    part = parts.to_table(filter=mine).sort_by(ROW)
    values_ND = rows_of_lists(part["features"])
    refuse_nan(values_ND, part["fault"], table["id"])
    write_features(path, table, values_ND, part[SECONDS])


def write_features(path: Path, table: pa.Table, values_ND: np.ndarray, seconds: pa.ChunkedArray | pa.Array) -> None:
    """Write a task's rows with their features [N, D], and the seconds that each took."""
    group = pc.if_else(pc.equal(table["group"], ""), None, table["group"])  # a row without one stands alone
    columns = table.drop_columns(["text", "image", "group"]).append_column("group", group)
    columns = columns.append_column("features", list_column(values_ND)).append_column(SECONDS, seconds)
    write_rows(path, columns)
