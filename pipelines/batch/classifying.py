"""The head of a classifier, fitted on the labelled train rows or on a sample of them, and its answers to all rows.

Shapes: N rows, C labels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kcm.inputs.labels import UNLABELLED
from kcm.large import LinearHead, fit_head
from kcm.tasks.splits import row_key
from pipelines.batch.mapping import run_remotely
from pipelines.batch.shards import map_shards
from pipelines.batch.units import Counts, RowFunction
from pipelines.context import Attempt
from pipelines.store.features import SECONDS, FeaturesArtefact, feature_matrix
from pipelines.store.outcomes import Answers
from pipelines.store.sequence import unit_names
from pipelines.store.storage import Storage

MAX_FITTED_ROWS = 65_536  # a class has a few hundred weights: more rows hardly move a head


@dataclass(frozen=True)
class RowHead:
    """A head, and out-of-fold probabilities float32 [N, C] of the rows on which it was fitted, by id."""

    head: LinearHead
    ids: pa.Array
    out_of_fold_NC: np.ndarray

    @classmethod
    def fit(
        cls, rows: pa.Table, num_labels: int, seed: int, known: LinearHead | None = None, dim: int | None = None
    ) -> Self:
        """Fit a head to rows with id, label, group and features: a new head, or the `known` head to more labels.

        The head reads the first `dim` features; a `known` head continues to read its own.
        """
        labels_N, groups_N = rows["label"].to_numpy(), unit_names(rows)
        features_ND = _first_features(rows, known.weight_CD.shape[1] if known else dim)
        fit = fit_head(features_ND, labels_N, groups_N, num_labels, seed=seed, known=known)
        return cls(fit.head, rows["id"].combine_chunks(), fit.out_of_fold_NC)

    def probabilities(self, rows: pa.Table) -> np.ndarray:
        """Class probabilities, for each row from a head that has not seen it."""
        probabilities_NC = self.head.probabilities(_first_features(rows, self.head.weight_CD.shape[1]))
        positions = pc.index_in(rows["id"], value_set=self.ids)
        is_fitted = positions.is_valid().to_numpy()
        probabilities_NC[is_fitted] = self.out_of_fold_NC[positions.drop_null().to_numpy()]
        return probabilities_NC


def row_classifier(fitted: RowHead) -> RowFunction:
    """A function that answers rows with the probabilities of a head; an answer costs the time of encoding the row."""

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
    attempt: Attempt, num_labels: int, seed: int, features: FeaturesArtefact, without: Collection[str] = ()
) -> LinearHead:
    """Write a file with the answers to every shard of features to the attempt's folder; returns the head.

    The shards `without` neither teach the head nor get answers. The head does not read the topics of words, which only
    the small side reads.
    """
    sources = {name: path for name, path in features.all_shards.items() if name not in without}
    dim = features.dim - features.num_words
    fitted = run_remotely(_fit, num_labels, seed, list(sources.values()), features.storage, dim)
    map_shards(attempt, sources, partial(row_classifier, fitted), attempt.folder, attempt.scratch)
    return fitted.head


def _fit(num_labels: int, seed: int, shards: Sequence[Path], storage: Storage, dim: int) -> RowHead:
    """Fit the head on this node, which fetches all shards."""
    rows = fitted_rows([storage.fetch(shard) for shard in shards], seed)
    return RowHead.fit(rows, num_labels, seed, dim=dim)


def _first_features(rows: pa.Table, dim: int | None) -> np.ndarray:
    return np.ascontiguousarray(feature_matrix(rows)[:, :dim])


def fitted_rows(shards: Sequence[Path], seed: int, limit: int = MAX_FITTED_ROWS) -> pa.Table:
    """The labelled train rows (id, label, group, features); of more than `limit` rows, the units with the lowest keys.

    Units are complete, so the head has seen no row of any other unit, and its probabilities for them are out of fold.
    """
    largest = _key_limit(shards, seed, limit)
    parts = []
    for rows in _labelled(shards, ["id", "label", "group", "features"]):
        parts.append(rows if largest is None else rows.filter(pa.array(_keys(rows, seed) <= largest)))
    return pa.concat_tables(parts)


def _key_limit(shards: Sequence[Path], seed: int, limit: int) -> int | None:
    """The largest key of the sample; None if all rows are in it."""
    smallest, total = np.empty(0, dtype=np.int64), 0
    for rows in _labelled(shards, ["id", "group"]):
        total += len(rows)
        smallest = np.sort(np.concatenate([smallest, _keys(rows, seed)]))[:limit]
    return int(smallest[-1]) if total > limit else None


def _keys(rows: pa.Table, seed: int) -> np.ndarray:
    return np.array([row_key(seed, unit) for unit in unit_names(rows)], dtype=np.int64)


def _labelled(shards: Sequence[Path], columns: Sequence[str]) -> Iterator[pa.Table]:
    """Columns of the labelled train rows."""
    for shard in shards:
        with pq.ParquetFile(shard) as file:
            for batch in file.iter_batches(columns=list({*columns, "label", "split"})):
                is_labelled = (pc.field("split") == "train") & (pc.field("label") != UNLABELLED)
                yield pa.table(batch.filter(is_labelled)).select(list(columns))
