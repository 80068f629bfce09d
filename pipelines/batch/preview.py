"""What features are worth before anything is trained or paid: class means with one covariance, on rows held out.

Labels that were mixed up, or an encoder that does not see what they mean, show here, a minute after the start. Shapes:
N rows, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import BinaryIO, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from kcm.collaborator.class_base import ClassBase
from kcm.inputs.vectors import matrix
from kcm.parquet import open_file, sound

Preview: TypeAlias = dict[str, tuple[int, int]]  # by task: rows held out, and those that are answered right

_ROWS = 131_072  # of all splits together; of more rows, row groups at equal distances
_SHRINKAGE = 0.01
_MAX_FEATURES = 8_192  # whose covariance takes half a GiB


def preview(
    shards: Mapping[str, Sequence[Path]], num_labels: int, readable: Callable[[Path], Path | BinaryIO] = Path
) -> Preview:
    """How many rows of each task linear discriminant analysis answers right, from the train rows of all tasks.

    They are validate rows, or where there are none test rows.

    `shards` are the files of each task, `readable` what they are read from. Empty where there is nothing to compute it
    from, and for rows of more than `_MAX_FEATURES`.
    """
    files = {path: open_file(readable(path), pre_buffer=True) for paths in shards.values() for path in paths}
    step = math.ceil(sum(file.metadata.num_rows for file in files.values()) / _ROWS)
    dim = next(iter(files.values())).schema_arrow.field("features").type.list_size

    if dim > _MAX_FEATURES:
        return {}

    def tensors(paths: Iterable[Path], split: str) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for rows in _sampled({path: files[path] for path in paths}, split, step):
            yield torch.from_numpy(matrix(rows["features"])), torch.tensor(rows["label"].to_numpy())

    base = ClassBase(dim, num_labels, "lda", _SHRINKAGE)
    try:
        base.add(base.sums_of(tensors(chain.from_iterable(shards.values()), "train")))
    except (torch.linalg.LinAlgError, ZeroDivisionError):  # type: ignore[attr-defined]  # vectors are alike, or no label
        return {}
    found: Preview = {}
    for task, paths in shards.items():
        held_out = list(tensors(paths, "validate")) or tensors(paths, "test")
        right = [base(features_ND).argmax(1) == label_N for features_ND, label_N in held_out]
        if right:
            found[task] = sum(map(len, right)), int(sum(each.sum() for each in right))
    return found


def preview_lines(found: Preview, shown: int = 8) -> Iterator[str]:
    """The same in lines for a person."""
    if not found:
        return
    num_rows, num_right = (sum(counts) for counts in zip(*found.values(), strict=True))
    yield (
        "nothing is trained yet: class means with one covariance answer"
        f" {num_right / num_rows:.1%} of {num_rows:,} rows that it has not seen right"
    )
    if len(found) > 1:
        parts = [f"{task} {right / rows:.1%}" for task, (rows, right) in list(found.items())[:shown]]
        more = f" and {len(found) - shown} more tasks" if len(found) > shown else ""
        yield f"  {', '.join(parts)}{more}"


def _sampled(files: Mapping[Path, pq.ParquetFile], split: str, step: int) -> Iterator[pa.Table]:
    """Every `step`th row group, with the rows of the split that have a label; below 0 there is none."""
    for path, file in files.items():
        for group in range(0, file.num_row_groups, step):
            with sound(path):
                rows = file.read_row_group(group, columns=["split", "label", "features"])
            kept = rows.filter(pc.and_(pc.equal(rows["split"], split), pc.greater_equal(rows["label"], 0)))
            if len(kept):
                yield kept
