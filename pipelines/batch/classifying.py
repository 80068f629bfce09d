"""The head of a classifier, fitted on a bounded sample of the labelled train rows, and its answers to all rows.

Shapes: N rows of the sample, C labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kcm.inputs.labels import UNLABELLED
from kcm.large import LargeConfig, LinearHead
from kcm.learners.memory import row_key
from kcm.tasks.shards import SHARD_ROWS
from pipelines.batch.pool import Took, elsewhere, map_shards
from pipelines.cluster_config import ClusterConfig
from pipelines.progress import Bar
from pipelines.store.features import SECONDS, feature_matrix
from pipelines.store.outcomes import Answers
from pipelines.store.storage import Storage

MAX_FITTED_ROWS = 65_536  # of a head: a linear map has nothing to gain from more, and they fit in a worker's memory


@dataclass(frozen=True)
class FittedHead:
    """A head, and out-of-fold probabilities float32 [N, C] for the rows that it was fitted on, by their ids."""

    head: LinearHead
    ids: pa.Array
    out_of_fold_NC: np.ndarray


class Classify:
    """Gives rows the probabilities of a head, and out-of-fold ones where it was fitted on them."""

    unfinished: ClassVar[str | None] = None

    def __init__(self, fitted: FittedHead) -> None:
        self._fitted = fitted

    def __call__(self, rows: pa.Table, source: Path) -> tuple[pa.Table, Took]:
        """The answers to rows of features; each costs what encoding it took."""
        probabilities = self._fitted.head.probabilities(feature_matrix(rows))
        found = pc.index_in(rows["id"], value_set=self._fitted.ids)
        is_fitted = found.is_valid().to_numpy()
        probabilities[is_fitted] = self._fitted.out_of_fold_NC[found.drop_null().to_numpy()]
        answers = Answers(
            label_N=probabilities.argmax(axis=1),
            probabilities_NC=probabilities,
            cost_N=rows[SECONDS].to_numpy(),
            failed_N=np.zeros(len(rows), dtype=bool),
        )
        return answers.table(rows), {}


def classify(
    large: LargeConfig,
    num_labels: int,
    seed: int,
    sources: Mapping[str, Path],
    *,
    cluster: ClusterConfig,
    scratch: Path,
    storage: Storage,
    bar: Bar,
) -> tuple[dict[str, Path], LinearHead]:
    """A file with the answers to the rows of every shard of features: the files by name, and the head."""
    fitted: FittedHead
    (fitted,) = elsewhere(fit_sample, (large, num_labels, seed, list(sources.values())))
    made, _ = map_shards(
        sources,
        Classify,
        {"fitted": fitted},
        rows_per_piece=SHARD_ROWS,
        cluster=cluster,
        scratch=scratch,
        storage=storage,
        bar=bar,
    )
    return made, fitted.head


def fit_sample(
    large: LargeConfig, num_labels: int, seed: int, shards: Sequence[Path], limit: int = MAX_FITTED_ROWS
) -> FittedHead:
    """Fit the head on the labelled train rows; of more than `limit` on those with the smallest keys.

    Rows beyond the sample are new to the head, whose probabilities for them are as good as out-of-fold ones.
    """
    largest = _key_limit(shards, seed, limit)
    parts = []
    for rows in _labelled(shards, ["id", "label", "group", "features"]):
        parts.append(rows if largest is None else rows.filter(pa.array(_keys(rows, seed) <= largest)))
    sample = pa.concat_tables(parts)
    # A row without a group stands alone: its id is its group.
    groups = pc.coalesce(sample["group"], sample["id"]).to_pylist()
    fit = large.fit(feature_matrix(sample), sample["label"].to_numpy(), groups, num_labels, seed)
    return FittedHead(fit.head, sample["id"].combine_chunks(), fit.out_of_fold_NC)


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
                mask = pc.and_(pc.equal(batch["split"], "train"), pc.not_equal(batch["label"], UNLABELLED))
                yield pa.table(batch.filter(mask)).select(list(columns))
