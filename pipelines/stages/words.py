"""Words in addition to the features of texts: one process fits them to train rows of the first task.

Shapes: N rows, D features of the embedding, K topics of words.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from kcm.encoders.words import Words, fit_words, useful_scale
from kcm.inputs.vectors import list_column
from kcm.metrics.intervals import Units
from kcm.tasks.shards import task_shards
from kcm.tasks.splits import draws
from pipelines.batch.encoding import TEXT
from pipelines.batch.mapping import run_remotely
from pipelines.batch.shards import map_shards
from pipelines.batch.units import Counts, RowFunction
from pipelines.context import Attempt
from pipelines.stages.preview import sampled
from pipelines.store.features import WORDS, feature_matrix
from pipelines.store.sequence import unit_names

_FITTED_ROWS, _CHOOSING_ROWS = 8192, 1000  # most train rows to which words are fitted, and that choose their scale
_SEED = 0  # for drawing these rows; not the run's seed, since a row's features are the same in every run
_COLUMNS = ("id", "split", "label", "group", "features", TEXT)


def add_words(attempt: Attempt, embedded: Path, names: Sequence[str]) -> int:
    """Write the shards of `embedded` to the attempt's folder, with topics of words if they help; the number of topics.

    The shards have a column of texts, which is dropped. Helpful words are saved in the folder `WORDS`.
    """
    readable, sources = attempt.context.store.storage.readable, {name: embedded / name for name in names}
    words: Words | None = run_remotely(_useful_words, task_shards(embedded, 0, names), readable)
    map_shards(attempt, sources, partial(_adder, words), attempt.folder, attempt.scratch / WORDS)
    if words is None:
        return 0
    (attempt.folder / WORDS).mkdir()
    words.save(attempt.folder / WORDS)
    return words.num_topics


def _useful_words(shards: Sequence[Path], readable: partial[Path | BinaryIO]) -> Words | None:
    """The words of train rows in the shards of the first task, at the most helpful scale; None if no scale helps."""
    rows = sampled(shards, _COLUMNS, _FITTED_ROWS, _SEED, readable)
    words = fit_words(rows[TEXT].to_pylist()) if len(rows) else None
    if words is None:
        return None
    rows = rows.take(np.argsort(draws(_SEED, "words", rows["id"].to_pylist()), kind="stable")[:_CHOOSING_ROWS])
    labels, label_N = np.unique(rows["label"].to_numpy(), return_inverse=True)
    units = Units(np.array(unit_names(rows), dtype=object), len(rows))
    if len(labels) < 2 or units.count < 2:
        return None
    scale = useful_scale(feature_matrix(rows), words.encode(rows[TEXT].to_pylist()), label_N, units)
    return words.scaled(scale) if scale else None


def _adder(words: Words | None) -> RowFunction:
    """A function that removes the texts of rows and appends their topics to the features."""

    def add(rows: pa.Table) -> tuple[pa.Table, Counts]:
        if words is None:
            return rows.drop_columns([TEXT]), {}
        topics_NK = words.encode(rows[TEXT].to_pylist())
        features = list_column(np.concatenate([feature_matrix(rows), topics_NK], 1))
        place = rows.column_names.index("features")
        return rows.set_column(place, "features", features).drop_columns([TEXT]), {}

    return add
