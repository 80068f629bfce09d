"""The quality of the features on a sample of the train rows, printed before anything is trained.

The measure is the accuracy of ridge regression on left-out train rows. It reveals mixed-up labels, and an encoder that
does not fit the labels. No test or certify row is read.

Shapes: N rows of the sample, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kcm.closed_form.left_out import ridge_left_out
from kcm.metrics.intervals import Units
from kcm.parquet import open_file, sound
from kcm.tasks.splits import draws
from pipelines.store.features import feature_matrix
from pipelines.store.sequence import unit_names

Preview: TypeAlias = dict[str, tuple[int, int]]  # by task: train rows left out, and those that are answered right
SAMPLE = 1000  # rows that are used, over all tasks: an accuracy of 90% is known to a point
_SHOWN = 8  # tasks
_READ = 16_384  # rows that are read to draw the sample; from larger files, row groups at equal distances


def preview(
    shards: Mapping[str, Sequence[Path]], seed: int, readable: Callable[[Path], Path | BinaryIO] = Path
) -> Preview:
    """For each task, the number of left-out train rows and of right answers among them.

    `shards` are the files of each task; `readable` opens a file. The result is empty if there are too few labels or
    units.
    """
    columns, count = ("id", "split", "label", "group", "features"), math.ceil(SAMPLE / len(shards))
    parts = [sampled(paths, columns, count, seed, readable) for paths in shards.values()]
    rows = pa.concat_tables(parts)
    right_N = right_left_out(feature_matrix(rows), rows)
    if right_N is None:
        return {}
    by_task = np.split(right_N, np.cumsum([len(part) for part in parts])[:-1])
    return {task: (len(right), int(right.sum())) for task, right in zip(shards, by_task, strict=True) if len(right)}


def preview_lines(by_task: Preview) -> Iterator[str]:
    """The same in lines for a person."""
    if not by_task:
        return
    num_rows, num_right = (sum(counts) for counts in zip(*by_task.values(), strict=True))
    yield (
        f"before training: ridge regression on the features is right on {num_right / num_rows:.1%} of"
        f" {num_rows:,} train rows, each left out in turn"
    )
    if len(by_task) > 1:
        parts = [f"{task} {right / rows:.1%}" for task, (rows, right) in list(by_task.items())[:_SHOWN]]
        more = f" and {len(by_task) - _SHOWN} more tasks" if len(by_task) > _SHOWN else ""
        yield f"  {', '.join(parts)}{more}"


def sampled(
    shards: Sequence[Path],
    columns: Sequence[str] | None,
    count: int,
    seed: int,
    readable: Callable[[Path], Path | BinaryIO],
) -> pa.Table:
    """Up to `count` labelled train rows: those whose ids draw the lowest numbers. `columns` None means all columns."""
    files = {path: open_file(readable(path), pre_buffer=True) for path in shards}
    step = math.ceil(sum(file.metadata.num_rows for file in files.values()) / _READ)
    rows: list[pa.Table] = []
    for path, file in files.items():
        for group in range(0, file.num_row_groups, step):
            with sound(path):
                read = file.read_row_group(group, columns=columns)
            rows.append(read.filter(pc.and_(pc.equal(read["split"], "train"), pc.greater_equal(read["label"], 0))))
            sample = pa.concat_tables(rows, promote_options="default")  # a task without pictures lacks their column
            drawn_N = draws(seed, "preview", sample["id"].to_pylist())
            rows = [sample.take(np.sort(np.argsort(drawn_N, kind="stable")[:count]))]
    return rows[0]


def right_left_out(features_ND: NDArray[np.float32], rows: pa.Table) -> NDArray[np.bool_] | None:
    """Which rows ridge regression answers right when their unit is left out, [N].

    None with fewer than two labels or two units.
    """
    labels, label_N = np.unique(rows["label"].to_numpy(), return_inverse=True)
    units = Units(np.array(unit_names(rows), dtype=object), len(rows))
    if len(labels) < 2 or units.count < 2:
        return None
    ridge = ridge_left_out(features_ND.astype(np.float64).__getitem__, np.eye(len(labels))[label_N], units)
    return np.asarray(ridge.left_out.argmax(1) == label_N)
