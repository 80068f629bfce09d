"""The shards of each task, in the order of its rows, and the features stored in them.

Shapes: N rows, D features.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kcm.encoders.config import EncoderConfig, Runtime
from kcm.encoders.runtime import in_runtime
from kcm.encoders.text_settings import fits_words
from kcm.inputs.vectors import list_column, matrix
from kcm.tasks import Split
from kcm.tasks.shards import RowIndex, shard_file
from pipelines.store.sequence import Names, SequenceArtefact, ShardedArtefact

SECONDS = "seconds"  # seconds of encoding a row on one actor: the cost of a call
FACTS = "features.json"  # the runtime that computed the features, and their quality by `preview`
WORDS = "words"  # the folder of fitted words; in `FACTS`, the number of features that are topics of words
IDENTITY = "identity"  # of the encoder with its fitted words
CUT = "cut"  # texts with more tokens than the encoder reads


def features_table(rows: pa.Table, values_ND: np.ndarray, seconds_N: np.ndarray) -> pa.Table:
    """Rows of a task without their content, with features [N, D] and the seconds per row."""
    columns = {name: rows[name] for name in ("id", "label", "split") if name in rows.column_names}
    if "group" in rows.column_names:
        columns["group"] = pc.if_else(pc.equal(rows["group"], ""), None, rows["group"])  # one without it stands alone
    return pa.table(columns | {"features": list_column(values_ND), SECONDS: pa.array(seconds_N)})


def feature_matrix(table: pa.Table) -> np.ndarray:
    """The features of a table's rows as float32 [N, D]."""
    return matrix(table["features"])


class FeaturesArtefact(ShardedArtefact):
    """The rows of each task after the encoder, with features [D] and `FACTS`."""

    kind = "features"

    @cached_property
    def sequence(self) -> SequenceArtefact:
        """The task sequence of these rows."""
        return self.source(SequenceArtefact, "tasks")

    @property
    def names(self) -> Names:
        """The names of the tasks and labels."""
        return self.sequence.names

    @property
    def identity(self) -> str:
        """The identity of the encoder, with words that were fitted for it."""
        return str(self.facts.get(IDENTITY, self.manifest["section"]["identity"]))

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The content of `FACTS`."""
        return self.json(FACTS)

    @property
    def runtime(self) -> Runtime | None:
        """The runtime that computed the features; None for an encoder without a choice."""
        return self.facts["runtime"]

    def made_by(self, encoder: EncoderConfig) -> EncoderConfig:
        """The configured encoder as it computed them: with what was fitted for it, in its runtime."""
        encoder = in_runtime(encoder, self.runtime)
        return encoder.aligned(self.below(WORDS)) if self.num_words and fits_words(encoder) else encoder

    @property
    def num_words(self) -> int:
        """The last features of a row, which are topics of words; 0 without words."""
        return int(self.facts.get(WORDS, 0))

    @property
    def num_cut(self) -> int:
        """Texts with more tokens than the encoder reads; 0 if nothing counted them."""
        return int(self.facts.get(CUT, 0))

    @property
    def device(self) -> str:
        """The kind of device that computed the features."""
        return self.manifest["section"]["device"]

    @property
    def preview(self) -> dict[str, tuple[int, int]]:
        """The number of left-out train rows of each task and of right answers to them; empty without a preview."""
        return self.facts["preview"]

    @cached_property
    def dim(self) -> int:
        """Number of features of a row."""
        schema = pq.read_schema(self.readable(shard_file(self.path, 0, 0).name))
        return int(schema.field("features").type.list_size)

    def num_rows(self, split: str) -> int:
        """The rows of a split, out-of-scope rows included."""
        names = split, f"{split}, out of scope"
        return sum(len(index.ranges.get(name, ())) for index in self._indices for name in names)

    def deciding(self, number: int) -> Split:
        """The split whose rows choose gate and policy for a task: validate, or train if validate is empty."""
        ranges = self._indices[number].ranges
        return "validate" if "validate" in ranges or "validate, out of scope" in ranges else "train"

    def stored_split(self, number: int, split: Split) -> Split:
        """The stored split for `split` of a task: the rows that choose replace validate rows."""
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
    def num_train_rows(self) -> list[int]:
        """The rows of each task on which networks are trained."""
        return [len(index.ranges.get("train", ())) for index in self._indices]

    def holding(self, number: int, split: str) -> list[int]:
        """The shards of a task that hold rows of a split; the first shard if none does."""
        index, positions = self._indices[number], set[int]()
        ends = np.cumsum(index.shard_rows)
        for name in (split, f"{split}, out of scope"):
            if rows := index.ranges.get(name):
                first, last = np.searchsorted(ends, [rows.start, rows.stop - 1], side="right").tolist()
                positions.update(range(first, last + 1))
        return sorted(positions) or [0]

    @cached_property
    def _indices(self) -> list[RowIndex]:
        """The index of each task; from a bucket, only the columns with splits and labels are fetched."""
        readable = self.storage.readable
        return [RowIndex.of_shards(self.shards(number), readable) for number in range(len(self.names.tasks))]
