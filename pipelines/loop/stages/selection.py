"""What of a window becomes the rows of a task: which decisions, under which labels.

    train      every answer of the large model is part of the distillation pool, unweighted; labels of people join it
    validate   decisions that the large model answered; their label is what a person said who was asked, else its answer
    test       likewise
    certify    nothing: its decisions are certified on as they are, and never become rows

Labels that people volunteer train, and do nothing else: people report errors, they are no sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from kcm.inputs.labels import OUT_OF_SCOPE, UNLABELLED
from kcm.tasks import Task
from kcm.tasks.plan.splits import SPLITS, Split
from kcm.tasks.sequence import dataset_of
from pipelines.store.sequence import Names


def row_ids(window: pa.Table) -> pa.ChunkedArray:
    """The ids that decisions have as rows of a task."""
    return pc.binary_join_element_wise(window["request_id"], window["item"].cast(pa.string()), "/")


def task_of(window: pa.Table, name: str, names: Names) -> Task:
    """The task that a window becomes; `names` are those of the grown sequence, its label list included.

    Rows of a split are in the order of their decisions, those that are out of scope last. A row's group is its unit.
    """
    numbers = {label: number for number, label in enumerate(names.labels)}
    if names.none_label is not None:
        numbers[names.none_label] = OUT_OF_SCOPE
    splits = {split: _rows(window, split, numbers) for split in SPLITS}
    present = {label for rows in splits.values() for label in rows["label"]}
    labels = tuple(label for number, label in enumerate(names.labels) if number in present)
    return Task(name, labels, {split: dataset_of(rows) for split, rows in splits.items()})


def _rows(window: pa.Table, split: Split, numbers: Mapping[str, int]) -> dict[str, list[object]]:
    """The columns of a split."""
    table = window.filter(pc.fill_null(pc.equal(window["purpose"], pa.scalar(split)), False))
    if split == "certify":
        table = table.slice(0, 0)
    asked = split != "train"
    given = pc.coalesce(table["inbox_label"], table["large_label"] if asked else table["label"])
    answered = table["large_label"].is_valid()
    labels = [numbers.get(label, UNLABELLED) for label in given.to_pylist()]
    if asked:  # a large model may name what is not in the list
        chosen = pc.and_(answered, pa.array([label != UNLABELLED for label in labels], pa.bool_()))
    else:
        chosen, labels = pc.or_(answered, given.is_valid()), _trainable(labels)
    table = table.append_column("id", row_ids(table)).append_column("known", pa.array(labels, pa.int64()))
    table = table.filter(chosen)
    outside = pc.equal(table["known"], OUT_OF_SCOPE)  # these rows lie together, after the others
    table = pa.concat_tables([table.filter(pc.invert(outside)), table.filter(outside)])
    return {
        "id": table["id"].to_pylist(),
        "text": pc.fill_null(table["text"], "").to_pylist(),
        "image": pc.fill_null(table["image"], b"").to_pylist(),
        "label": table["known"].to_pylist(),
        "group": table["unit"].to_pylist(),
    }


def _trainable(labels: Sequence[int]) -> list[int]:
    """Networks have no output for none-of-these: such a row teaches by what the large model says of it."""
    return [UNLABELLED if label == OUT_OF_SCOPE else label for label in labels]
