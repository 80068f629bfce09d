"""The head of a classifier, fitted on the labelled train rows, and its answers to all rows.

Shapes: N rows, C labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kcm.inputs.labels import UNLABELLED
from kcm.large import LargeConfig, LinearHead
from kcm.large.streamed_head import LabelledRows, StreamedFit, fit_streamed
from kcm.tasks.hashing import row_key
from pipelines.batch.mapping import run_remotely
from pipelines.batch.shards import Counts, RowFunction, map_shards
from pipelines.context import Context
from pipelines.progress import Bar
from pipelines.store.features import SECONDS, feature_matrix
from pipelines.store.outcomes import Answers
from pipelines.store.storage import Storage

MAX_FITTED_ROWS = 65_536  # that are fitted in one memory; of more, every step reads them anew
NUM_FOLDS = 5  # of a fit by steps


@dataclass(frozen=True)
class FittedAtOnce:
    """A head fitted in one memory, and out-of-fold probabilities float32 [N, C] of its rows, by their ids."""

    head: LinearHead
    ids: pa.Array
    out_of_fold_NC: np.ndarray

    def probabilities(self, rows: pa.Table) -> np.ndarray:
        """Class probabilities, out-of-fold of the rows that it was fitted on."""
        probabilities_NC = self.head.probabilities(feature_matrix(rows))
        found = pc.index_in(rows["id"], value_set=self.ids)
        is_fitted = found.is_valid().to_numpy()
        probabilities_NC[is_fitted] = self.out_of_fold_NC[found.drop_null().to_numpy()]
        return probabilities_NC


@dataclass(frozen=True)
class FittedBySteps:
    """A head fitted on rows that were streamed; a row is of the fold that its unit's hash says."""

    fit: StreamedFit

    @property
    def head(self) -> LinearHead:
        """The head of all rows."""
        return self.fit.head

    def probabilities(self, rows: pa.Table) -> np.ndarray:
        """Class probabilities, out-of-fold of the labelled train rows."""
        features_ND = feature_matrix(rows)
        probabilities_NC = self.head.probabilities(features_ND)
        mine = _is_labelled(rows).to_numpy(zero_copy_only=False)
        probabilities_NC[mine] = self.fit.out_of_fold(features_ND[mine], _folds(rows)[mine])
        return probabilities_NC


RowHead: TypeAlias = FittedAtOnce | FittedBySteps


def row_classifier(fitted: RowHead) -> RowFunction:
    """A function that gives rows the probabilities of a head, at the cost of encoding them."""

    def classify(rows: pa.Table) -> tuple[pa.Table, Counts]:
        probabilities_NC = fitted.probabilities(rows)
        answers = Answers(
            label_N=probabilities_NC.argmax(axis=1),
            probabilities_NC=probabilities_NC,
            cost_N=rows[SECONDS].to_numpy(),
            failed_N=np.zeros(len(rows), dtype=bool),
        )
        return answers.table(rows), {}

    return classify


def classify_shards(
    context: Context,
    large: LargeConfig,
    num_labels: int,
    seed: int,
    sources: Mapping[str, Path],
    folder: Path,
    *,
    scratch: Path,
    bar: Bar,
) -> tuple[dict[str, str], LinearHead]:
    """Write a file with the answers to every shard of features to `folder`: their SHA-256 by name, and the head."""
    storage = context.store.storage
    fitted = run_remotely(_fit, large, num_labels, seed, list(sources.values()), storage)
    hashes, _ = map_shards(
        sources,
        partial(row_classifier, fitted),
        folder,
        cluster=context.cluster,
        scratch=scratch,
        storage=storage,
        bar=bar,
    )
    return hashes, fitted.head


def _fit(large: LargeConfig, num_labels: int, seed: int, shards: Sequence[Path], storage: Storage) -> RowHead:
    """Fit the head on this node, to which all shards come: every step may read them."""
    return fit_rows(large, num_labels, seed, [storage.fetch(shard) for shard in shards])


def fit_rows(
    large: LargeConfig, num_labels: int, seed: int, shards: Sequence[Path], limit: int = MAX_FITTED_ROWS
) -> RowHead:
    """Fit the head on the labelled train rows: at once up to `limit` of them, and beyond by steps that read them all.

    The rows with the smallest keys choose the strength of the penalty, and where the steps begin.
    """
    largest = _key_limit(shards, seed, limit)
    parts = []
    for rows in _labelled(shards, ["id", "label", "group", "features"]):
        parts.append(rows if largest is None else rows.filter(pa.array(_keys(rows, seed) <= largest)))
    sample = pa.concat_tables(parts)
    # A row without a group stands alone: its id is its group.
    groups = pc.coalesce(sample["group"], sample["id"]).to_pylist()
    fit = large.fit(feature_matrix(sample), sample["label"].to_numpy(), groups, num_labels, seed)
    if largest is None:
        return FittedAtOnce(fit.head, sample["id"].combine_chunks(), fit.out_of_fold_NC)

    def batches() -> Iterator[LabelledRows]:
        for rows in _labelled(shards, ["id", "label", "group", "features"]):
            yield LabelledRows(feature_matrix(rows), rows["label"].to_numpy(), _folds(rows))

    return FittedBySteps(fit_streamed(batches, fit.head, fit.c, NUM_FOLDS))


def _folds(rows: pa.Table) -> np.ndarray:
    """The fold of every row, [N]: that of its group, else of itself."""
    units = pc.coalesce(rows["group"], rows["id"]).to_numpy()
    return np.asarray(pd.util.hash_array(units, categorize=False) % np.uint64(NUM_FOLDS)).astype(np.int64)


def _key_limit(shards: Sequence[Path], seed: int, limit: int) -> int | None:
    """The largest key of the sample; None where all rows are in it."""
    smallest, total = np.empty(0, dtype=np.int64), 0
    for rows in _labelled(shards, ["id"]):
        total += len(rows)
        smallest = np.sort(np.concatenate([smallest, _keys(rows, seed)]))[:limit]
    return int(smallest[-1]) if total > limit else None


def _keys(rows: pa.Table, seed: int) -> np.ndarray:
    return np.array([row_key(seed, row_id) for row_id in rows["id"].to_pylist()], dtype=np.int64)


def _labelled(shards: Sequence[Path], columns: Sequence[str]) -> Iterator[pa.Table]:
    """Columns of the labelled train rows."""
    for shard in shards:
        with pq.ParquetFile(shard) as file:
            for batch in file.iter_batches(columns=list({*columns, "label", "split"})):
                yield pa.table(batch.filter(_is_labelled(batch))).select(list(columns))


def _is_labelled(rows: pa.Table | pa.RecordBatch) -> pa.Array:
    """Which rows are labelled train rows."""
    return pc.and_(pc.equal(rows["split"], "train"), pc.not_equal(rows["label"], UNLABELLED))
