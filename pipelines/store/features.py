"""The shards of each task, in the order of its rows; and the features, which are stored so.

Shapes: N rows, D features.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kcm.encoders.config import EncoderConfig, Runtime
from kcm.inputs.vectors import list_column, matrix
from kcm.tasks import Split
from kcm.tasks.shards import RowIndex, shard_file
from pipelines.store.sequence import FEW_ROWS, Names, SequenceArtefact, ShardedArtefact

SECONDS = "seconds"  # what encoding a row took, on one actor: the cost of a call
FACTS = "features.json"  # what computed the features, and what they are worth by `preview`
CUT = "cut"  # texts that have more tokens than the encoder reads


def features_table(rows: pa.Table, values_ND: np.ndarray, seconds_N: np.ndarray) -> pa.Table:
    """Rows of a task, without what they show, with their features [N, D] and the seconds that each took."""
    columns = {name: rows[name] for name in ("id", "label", "split") if name in rows.column_names}
    if "group" in rows.column_names:
        columns["group"] = pc.if_else(pc.equal(rows["group"], ""), None, rows["group"])  # one without it stands alone
    return pa.table(columns | {"features": list_column(values_ND), SECONDS: pa.array(seconds_N)})


def feature_matrix(table: pa.Table) -> np.ndarray:
    """The features of a table's rows as float32 [N, D]."""
    return matrix(table["features"])


class FeaturesArtefact(ShardedArtefact):
    """The rows of each task through an encoder: id, split, label, group, features [D], seconds; `FACTS`."""

    kind = "features"

    @cached_property
    def sequence(self) -> SequenceArtefact:
        """The task sequence whose rows these are."""
        return self.source(SequenceArtefact, "grow", "alignment", "tasks")

    @property
    def names(self) -> Names:
        """The names of the tasks and labels."""
        return self.sequence.names

    @property
    def identity(self) -> str:
        """The identity of the encoder."""
        return self.manifest["section"]["identity"]

    @cached_property
    def _facts(self) -> dict[str, Any]:
        return self.json(FACTS)

    @property
    def runtime(self) -> Runtime | None:
        """What computed them; None for an encoder without a choice."""
        return self._facts["runtime"]

    def made_by(self, encoder: EncoderConfig) -> EncoderConfig:
        """The configured encoder as it made them, with its fitted head, in its runtime."""
        return self.sequence.with_head(encoder).in_runtime(self.runtime)

    @property
    def num_cut(self) -> int:
        """Texts that have more tokens than the encoder reads; 0 where nothing counted them."""
        return int(self._facts.get(CUT, 0))

    @property
    def device(self) -> str:
        """The kind of device that computed them."""
        return self.manifest["section"]["device"]

    @property
    def preview(self) -> dict[str, tuple[int, int]]:
        """Train rows of each task that were left out, and those answered right; empty where nothing looked."""
        return self._facts["preview"]

    @cached_property
    def dim(self) -> int:
        """Features of a row."""
        schema = pq.read_schema(self.readable(shard_file(self.path, 0, 0).name))
        return int(schema.field("features").type.list_size)

    def num_rows(self, split: str) -> int:
        """The rows of a split, those that are out of scope among them."""
        names = split, f"{split}, out of scope"
        return sum(len(index.ranges.get(name, ())) for index in self._indices for name in names)

    def deciding(self, number: int) -> Split:
        """The split whose rows choose gate and policy for a task: validate, or where that is empty its train rows."""
        ranges = self._indices[number].ranges
        return "validate" if "validate" in ranges or "validate, out of scope" in ranges else "train"

    def stored_split(self, number: int, split: Split) -> Split:
        """The split that the files have rows of `split` of a task in: those that choose stand for validate rows."""
        return self.deciding(number) if split == "validate" else split

    @property
    def tasks_without_validate(self) -> list[int]:
        """The tasks whose train rows choose gate and policy."""
        return [number for number in range(len(self._indices)) if self.deciding(number) == "train"]

    @property
    def num_deciding_undrawn(self) -> int:
        """The rows that choose gate and policy and that no draw leaves out, see `training.left_out.deciding_rows`."""
        out_of_scope = (
            self._indices[number].ranges.get("train, out of scope") for number in self.tasks_without_validate
        )
        return self.num_rows("validate") + sum(len(rows or ()) for rows in out_of_scope)

    @property
    def has_few_rows(self) -> bool:
        """Whether all splits together have at most `FEW_ROWS`."""
        return sum(sum(index.shard_rows) for index in self._indices) <= FEW_ROWS

    @property
    def num_train_rows(self) -> list[int]:
        """The rows of each task that networks are trained on."""
        return [len(index.ranges.get("train", ())) for index in self._indices]

    def holding(self, number: int, split: str) -> list[int]:
        """Which shards of a task hold rows of a split; the first one where none does."""
        index, found = self._indices[number], set[int]()
        ends = np.cumsum(index.shard_rows)
        for name in (split, f"{split}, out of scope"):
            if rows := index.ranges.get(name):
                first, last = np.searchsorted(ends, [rows.start, rows.stop - 1], side="right").tolist()
                found.update(range(first, last + 1))
        return sorted(found) or [0]

    @cached_property
    def _indices(self) -> list[RowIndex]:
        """The index of each task; of a bucket, only the columns with splits and labels are fetched."""
        readable = self.storage.readable if self.storage else Path
        return [RowIndex.of_shards(self.shards(number), readable) for number in range(len(self.names.tasks))]
