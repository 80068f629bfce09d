"""A classifier's head with outputs for the new labels of a window, fitted to people's labels of its items.

Shapes: N rows, D features of the large model's encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kcm.inputs.labels import UNLABELLED
from kcm.large import LargeConfig, LinearHead
from kcm.parquet import read_table
from pipelines.batch.classifying import RowHead, fitted_rows, row_classifier
from pipelines.batch.mapping import run_remotely
from pipelines.context import Attempt
from pipelines.loop.window.judged_window import window_features
from pipelines.loop.window.stage import WindowArtefact
from pipelines.serve.log.window import row_ids
from pipelines.stages.parent import Parent
from pipelines.store.features import FeaturesArtefact, features_table
from pipelines.store.outcomes import HEAD
from pipelines.store.storage import Storage


def answers_by_grown_head(
    attempt: Attempt, window: WindowArtefact, large: LargeConfig, seed: int, parent: Parent
) -> pa.Table:
    """The grown head's answers, as a table of outcomes, to the questions that the large model answered in a window.

    The outputs for new labels are fitted to people's labels of the window's train units, together with the rows on
    which the head was first fitted. The choice between two old labels stays: an answer changes only if a new label
    wins. The head is saved in the attempt's folder.
    """
    context, new = attempt.context, window.facts.new_labels
    labels, rows = (*parent.sequence.names.labels, *new), window.table
    row_labels = rows["label"].to_pylist()
    numbers = {label: number for number, label in enumerate(labels)}
    label_N = np.array([numbers.get(label, UNLABELLED) for label in row_labels])
    label_N[~pc.fill_null(pc.equal(rows["purpose"], "train"), False).to_numpy()] = UNLABELLED
    asked_N = rows["large_label"].is_valid().to_numpy()
    needed_N = asked_N | (label_N != UNLABELLED)
    rows, label_N, asked_N = rows.filter(pa.array(needed_N)), label_N[needed_N], asked_N[needed_N]

    first = parent.outcomes.source(FeaturesArtefact, "features")  # features of the large model's encoder
    if first.identity != parent.features.identity:  # the log has their features
        column = rows.column_names.index("features")
        rows = rows.set_column(column, "features", pa.nulls(len(rows), rows["features"].type))
    assert large.backbone is not None  # the rows on which the head is fitted
    encoder = first.made_by(large.backbone)
    features_ND = window_features(rows, encoder, attempt, attempt.scratch / "features")
    columns = {"id": row_ids(rows), "label": pa.array(label_N), "split": pa.array(["train"] * len(rows))}
    table = features_table(pa.table(columns | {"group": rows["unit"]}), features_ND, np.zeros(len(rows)))

    storage, head = context.store.storage, parent.outcomes.head
    shard_paths = [parent.features.path / name for name in first.all_shards]  # without forgotten rows
    labelled_rows = table.filter(pc.not_equal(table["label"], UNLABELLED))
    arguments = head, len(labels), seed, list(first.all_shards.values()), shard_paths, labelled_rows, storage
    new_head = run_remotely(_grown, *arguments)
    new_head.head.save(attempt.folder / HEAD)
    answers, _ = row_classifier(new_head)(table.filter(pa.array(asked_N)))
    return answers


def _grown(
    head: LinearHead,
    num_labels: int,
    seed: int,
    first: Sequence[Path],
    shard_paths: Sequence[Path],
    labelled_rows: pa.Table,
    storage: Storage,
) -> RowHead:
    """Fit the added outputs on this node: on the rows in `first` that are still in `kept`, and on those `taught`."""
    rows = fitted_rows([storage.fetch(shard) for shard in first], seed)
    is_kept_N = np.zeros(len(rows), dtype=bool)
    for shard in shard_paths:
        ids = read_table(storage.readable(shard), columns=["id"])["id"]
        is_kept_N |= pc.is_in(rows["id"], value_set=ids.combine_chunks()).to_numpy()
    rows = pa.concat_tables([rows.filter(pa.array(is_kept_N)), labelled_rows.select(rows.column_names)])
    return RowHead.fit(rows, num_labels, seed, head)
